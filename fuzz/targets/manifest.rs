#![cfg_attr(fuzzing, no_main)]

hindcast_fuzz::target!(hindcast_fuzz::manifest);

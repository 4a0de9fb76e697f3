//! Tests of the promises in docs/durability.md. Each tries to break one of them.

mod allocations;
mod bits;
mod common;
mod compact;
mod contradicting;
mod crash;
mod damage;
mod derive;
mod describe;
#[cfg(feature = "encrypt")]
mod encrypted;
mod faults;
mod forged;
mod golden;
mod hostile;
mod misplaced;
mod odd_files;
mod overwritten_by_itself;
mod parts;
mod reader;
mod reader_between_two_reads;
mod recover;
mod recover_any_damage;
mod recover_in_folders;
mod recover_while_writing;
mod redact;
mod resume;
mod ring;
mod round_trip;
mod rows;
#[cfg(feature = "sign")]
mod signed;

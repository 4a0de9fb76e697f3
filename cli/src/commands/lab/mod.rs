//! Verbs of the laboratory: experiments, exactness, benchmarks.

pub(crate) mod bench;
pub(crate) mod cleansing;
pub(crate) mod exactness;
pub(crate) mod experiment;
pub(crate) mod quality;

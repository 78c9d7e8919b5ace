//! Tests of the auditor: it accepts what an honest log writes, and finds everything else.

mod export;
mod findings;
mod history;
mod joins;
mod keys;
mod merkle;
mod policy;
mod portable;
mod sealing;
mod tampering;
mod times;
mod views;

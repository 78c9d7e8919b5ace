//! The model, checked: `exhaustive` visits every state within bounds and finds nothing wrong; `reasons` leaves out one
//! rule at a time and shows what goes wrong then. Run with `--nocapture` to read the numbers and the counterexamples.

mod exhaustive;
mod reasons;

//! What the join path may cost, counted in what does not depend on the machine: allocations, never time. And `joinload run`
//! as people use it, against a real authority.

mod allocations;
mod running;

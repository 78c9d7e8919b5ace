//! What the join path may cost, counted in what does not depend on the machine: allocations, never time.

mod allocations;

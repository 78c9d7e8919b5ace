//! The JSON twin of every gRPC call of `joinauthority.v1`, from the descriptors: HTTP and gRPC can't diverge.
//!
//! The option `joinauthority.v1.call` of each method says where it stands in HTTP and which role it needs. From it
//! follow the [`router`], the OpenAPI document ([`openapi`]) and the table of [`roles`].

mod calls;
mod codec;
mod json;
mod openapi;
mod problem;
mod request;
mod router;

pub use calls::{BadCall, roles};
pub use openapi::openapi;
pub use problem::problem;
pub use router::{Door, Limits, drain, router};

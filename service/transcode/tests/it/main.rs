//! The JSON twin, asked over HTTP and answered by gRPC services of this test.

mod answers;
mod authority;
mod errors;
mod openapi;
mod requests;
mod roles;
mod routes;
mod streams;

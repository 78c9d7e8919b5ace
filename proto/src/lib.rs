//! The wire: messages, clients and servers generated from the `.proto` files of this folder, and where they are reached.
//!
//! [`teleport`] is the public joining interface, [`v1`] is everything else. [`DESCRIPTORS`] holds both with their
//! options, so that JSON, YAML, reflection and OpenAPI follow from the same text.
#![allow(missing_docs, reason = "generated code carries the comments of the .proto files where there are any")]
#![allow(clippy::all, clippy::doc_markdown, reason = "generated code")]

mod address;

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

pub use self::address::{Address, AddressError, DEFAULT_PORT, for_another_host};

/// The one join method that is served.
pub const JOIN_METHOD: &str = "bound_keypair";
/// What keys and signatures a new key may have: Ed25519 and ECDSA P-256.
pub const ALGORITHM_SUITE: &str = "balanced-v1";
/// The domain of each refusal's `google.rpc.ErrorInfo`, whose reason is the refusal's code.
pub const ERROR_DOMAIN: &str = "joinauthority";

/// The encoded descriptor set of all files, imports included.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The decoded descriptors, with the `joinauthority.v1.call` option of every method.
pub static DESCRIPTORS: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTOR_SET).expect("the descriptor set was written by the build"));

/// `teleport.join.v1`, the public joining interface.
pub mod teleport {
    include!(concat!(env!("OUT_DIR"), "/teleport.join.v1.rs"));
}

/// `joinauthority.v1`, resources, ledger, cluster and joining over JSON.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/joinauthority.v1.rs"));
}

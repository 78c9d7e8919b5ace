//! The bot's side of bound keypair joining.
//!
//! [`Agent`] joins; [`run`] joins again and again. What an agent must not lose is one [`state::State`], kept by a
//! [`vault::Vault`] in a [`storage::Storage`]: before anything is sent the attempt is durable, and it ends only when
//! its result is. So a lost answer, a crash or a full disk at any point leads to the same attempt being sent again.
//!
//! ```no_run
//! use std::sync::Arc;
//! use join_agent::{Agent, clock::SystemClock, config::Config, entropy::SystemEntropy, storage::Memory};
//!
//! # async fn example(config: Config) -> Result<(), join_agent::error::JoinError> {
//! let mut agent = Agent::new(config, Arc::new(Memory::default()), SystemClock, SystemEntropy);
//! let joined = agent.join_once().await?;
//! println!("{} until {}", joined.certificate.user, joined.certificate.not_after);
//! # Ok(())
//! # }
//! ```

pub mod advice;
mod agent;
mod ceremony;
pub mod clock;
pub mod config;
mod connection;
pub mod credentials;
mod dial;
pub mod entropy;
pub mod error;
mod files;
pub mod health;
pub mod key;
pub mod output;
pub mod retry;
pub mod run;
pub mod state;
pub mod storage;
pub mod systemd;
pub mod trust;
pub mod vault;

pub use agent::{Agent, Joined};

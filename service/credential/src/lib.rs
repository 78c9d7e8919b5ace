//! The authority's keys, and everything that is signed or sealed with them.
//!
//! A credential is made from recorded facts alone: there is no I/O on the join path, no clock, and no randomness but
//! for keys and seals that are generated. Issuing a recorded grant again gives the same serial number and times.
//!
//! Read in this order: [`master`] and [`sealer`] (secrets at rest), [`keys`] and [`rotation`] (the keys of a cluster),
//! [`subject`] (keys that get certificates), [`issuer`] (credentials of bots), [`server`] and [`administrator`]
//! (certificates of everybody else), [`presented`] (who a client certificate names), [`crl`] and [`krl`] (revocation).

pub mod administrator;
pub mod crl;
pub mod issuer;
pub mod keys;
pub mod krl;
pub mod master;
pub mod pin;
pub mod presented;
pub mod rotation;
pub mod sealer;
pub mod serial;
pub mod server;
pub mod signer;
pub mod subject;

mod familiar;
mod join_state;
mod ssh;
mod x509;

pub use administrator::{AdministratorIdentity, Role};
pub use issuer::{BotGrant, Credentials, IssueError, Issuer};
pub use keys::{AuthorityKey, AuthorityKeys, KeysError, Phase, Purpose, SealedKey};
pub use master::MasterKey;
pub use presented::{CertificateReader, Presented};
pub use sealer::{KeyedHash, Sealer};
pub use serial::Serial;
pub use subject::Subject;
pub use x509::pem;

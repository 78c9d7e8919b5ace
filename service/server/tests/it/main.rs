//! The whole service, spoken to by its users over the network, on a real PostgreSQL.

mod administration;
mod attempts;
mod clones;
mod compatibility;
mod exemptions;
mod history;
mod hostile;
mod instances;
mod join_state;
mod keys;
mod late;
mod locks;
mod nodes;
mod onboarding;
mod outage;
mod public;
mod races;
mod recovery;
mod renewal;
mod restored;
mod roles;
mod rotation;
mod secrecy;
mod strangers;
mod wire;
mod world;

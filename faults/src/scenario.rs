//! The six kinds of joins that are interrupted.

use std::{fmt, time::Duration};

use anyhow::{Context as _, Result};
use join_agent::{key::PrivateKey, vault::Vault};

use crate::{
    administrator::Onboarding,
    host::{Client, Disk, Host},
    world::{LONG_LIFE, SHORT_LIFE, World},
};

/// What the next join is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scenario {
    /// The first, with a registration secret.
    FirstBySecret,
    /// The first, with a key that was preregistered.
    FirstPreregistered,
    /// With a live certificate.
    Renewal,
    /// With an expired one.
    Recovery,
    /// With a live certificate, when a new key is due.
    RotationInRenewal,
    /// With an expired one, when a new key is due.
    RotationInRecovery,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::FirstBySecret,
        Self::FirstPreregistered,
        Self::Renewal,
        Self::Recovery,
        Self::RotationInRenewal,
        Self::RotationInRecovery,
    ];

    /// Whether a new key is due.
    pub const fn rotates(self) -> bool {
        matches!(self, Self::RotationInRenewal | Self::RotationInRecovery)
    }

    /// Whether it uses one of the token's recoveries.
    pub const fn costs_recovery(self) -> bool {
        !matches!(self, Self::Renewal | Self::RotationInRenewal)
    }

    /// Whether the bot has joined before.
    pub const fn is_first(self) -> bool {
        matches!(self, Self::FirstBySecret | Self::FirstPreregistered)
    }

    /// As many recoveries as it needs when nothing is counted twice.
    pub const fn limit(self) -> u32 {
        match self {
            Self::Recovery | Self::RotationInRecovery => 2,
            _ => 1,
        }
    }

    const fn life_before(self) -> Duration {
        match self {
            Self::Recovery | Self::RotationInRecovery => SHORT_LIFE,
            _ => LONG_LIFE,
        }
    }

    /// A host on which this is the next join, once [`World::let_expire`] was called and [`Scenario::make_due`] too.
    ///
    /// # Errors
    /// When something fails although nothing was to go wrong yet.
    pub async fn set_up(self, world: &World, name: &str, client: Client, disk: Disk) -> Result<Host> {
        self.set_up_with_limit(world, name, client, disk, self.limit()).await
    }

    /// The same with another limit of recoveries.
    ///
    /// # Errors
    /// When something fails although nothing was to go wrong yet.
    pub async fn set_up_with_limit(
        self,
        world: &World,
        name: &str,
        client: Client,
        disk: Disk,
        limit: u32,
    ) -> Result<Host> {
        let key = PrivateKey::generate_ed25519();
        let onboarding = match self {
            Self::FirstPreregistered => Onboarding::Preregistered(key.public().clone()),
            _ => Onboarding::Secret,
        };
        let secret = world.admin.add(name, &onboarding, limit).await?;
        let host = Host::new(world, name, client, disk, secret, self.life_before()).await?;
        if self == Self::FirstPreregistered {
            Vault::open(host.storage()?)?.add_key(key)?;
        }
        if !self.is_first() {
            host.join().await.context("the first join")?;
        }
        Ok(host)
    }

    /// Asks for what is to be due, and lets certificates live long again.
    ///
    /// # Errors
    /// The service's.
    pub async fn make_due(self, world: &World, host: &mut Host) -> Result<()> {
        host.live_long();
        if self.rotates() {
            world.admin.rotate(&host.name).await?;
        }
        Ok(())
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FirstBySecret => "first-by-secret",
            Self::FirstPreregistered => "first-preregistered",
            Self::Renewal => "renewal",
            Self::Recovery => "recovery",
            Self::RotationInRenewal => "rotation-in-renewal",
            Self::RotationInRecovery => "rotation-in-recovery",
        })
    }
}

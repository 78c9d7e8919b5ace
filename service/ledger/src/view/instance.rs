//! Bot instances: every lineage that ever joined, with its newest authentications.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, VecDeque},
};

use join_domain::{
    Timestamp,
    envelope::{Entry, StreamId},
    event::{Event, JoinAccepted, JoinCase},
    id::{InstanceId, Name, TokenId},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::token::{Token, Tokens};
use crate::{
    Ledger, LedgerError,
    lease::in_time,
    row::{signed, unsigned},
};

/// Authentications that are kept beside an instance; all of them are in the history.
const LATEST: usize = 10;

/// A joined lineage of a bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// The token that it joined with.
    pub token: TokenId,
    /// That token's name.
    pub token_name: String,
    /// The bot.
    pub bot_name: String,
    /// The lineage before it.
    pub previous: Option<InstanceId>,
    /// Generation of its newest certificate.
    pub generation: u64,
    /// Accepted joins; a resumed one counts once.
    pub joins: u64,
    /// When it first joined.
    pub first_at: Timestamp,
    /// When it last joined.
    pub latest_at: Timestamp,
    /// When its newest certificate ends.
    pub certificate_not_after: Timestamp,
    /// Its newest authentications, newest first, ten at most.
    pub latest: VecDeque<Authentication>,
}

/// One authentication of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// When.
    pub at: Timestamp,
    /// From where.
    pub address: Option<String>,
    /// Which case it was; none for a resume, which gives an earlier answer again.
    pub case: Option<JoinCase>,
    /// Generation in the certificate.
    pub generation: u64,
    /// Its serial number, hex.
    pub serial: String,
    /// When it ends.
    pub not_after: Timestamp,
}

/// How one is stored: by place, since ten of them are written again for each join. Moments in µs since 1970.
#[derive(Serialize, Deserialize)]
struct StoredAuthentication<'a>(i64, Option<Cow<'a, str>>, Option<JoinCase>, u64, #[serde(borrow)] Cow<'a, str>, i64);

impl<'a> From<&'a Authentication> for StoredAuthentication<'a> {
    fn from(seen: &'a Authentication) -> Self {
        Self(
            seen.at.timestamp_micros(),
            seen.address.as_deref().map(Cow::Borrowed),
            seen.case,
            seen.generation,
            Cow::Borrowed(&seen.serial),
            seen.not_after.timestamp_micros(),
        )
    }
}

impl StoredAuthentication<'_> {
    fn read(self) -> Option<Authentication> {
        let Self(at, address, case, generation, serial, not_after) = self;
        Some(Authentication {
            at: Timestamp::from_timestamp_micros(at)?,
            address: address.map(Cow::into_owned),
            case,
            generation,
            serial: serial.into_owned(),
            not_after: Timestamp::from_timestamp_micros(not_after)?,
        })
    }
}

impl Instance {
    fn begin(entry: &Entry, join: &JoinAccepted, token: &Token) -> Self {
        Self {
            id: join.instance,
            token: TokenId(entry.stream.id),
            token_name: token.name.clone(),
            bot_name: token.bot_name.clone(),
            previous: join.previous_instance,
            generation: join.generation,
            joins: 0,
            first_at: entry.decided_at,
            latest_at: entry.decided_at,
            certificate_not_after: join.not_after,
            latest: VecDeque::new(),
        }
    }

    fn join(&mut self, entry: &Entry, join: &JoinAccepted) {
        self.joins = self.joins.saturating_add(1);
        self.generation = join.generation;
        self.latest_at = entry.decided_at;
        self.certificate_not_after = join.not_after;
        self.see(Authentication {
            at: entry.decided_at,
            address: entry.origin.address.clone(),
            case: Some(join.case),
            generation: join.generation,
            serial: join.serial.clone(),
            not_after: join.not_after,
        });
    }

    fn see(&mut self, authentication: Authentication) {
        self.latest.push_front(authentication);
        self.latest.truncate(LATEST);
    }
}

/// What is read of an instance.
struct InstanceRow {
    instance_id: Uuid,
    token_id: Uuid,
    token_name: String,
    bot_name: String,
    previous_instance_id: Option<Uuid>,
    generation: i64,
    joins: i64,
    first_at: Timestamp,
    latest_at: Timestamp,
    certificate_not_after: Timestamp,
    latest: String,
}

impl InstanceRow {
    fn latest(&self) -> Result<VecDeque<Authentication>, LedgerError> {
        let corrupt = |why: &dyn std::fmt::Display| {
            LedgerError::Corrupt(format!("authentications of instance {} do not read: {why}", self.instance_id))
        };
        let stored: Vec<StoredAuthentication<'_>> =
            serde_json::from_str(&self.latest).map_err(|error| corrupt(&error))?;
        let read = stored.into_iter().map(StoredAuthentication::read).collect::<Option<_>>();
        read.ok_or_else(|| corrupt(&"a moment is out of range"))
    }

    fn instance(self) -> Result<Instance, LedgerError> {
        let latest = self.latest()?;
        Ok(Instance {
            id: InstanceId(self.instance_id),
            token: TokenId(self.token_id),
            token_name: self.token_name,
            bot_name: self.bot_name,
            previous: self.previous_instance_id.map(InstanceId),
            generation: unsigned(self.generation)?,
            joins: unsigned(self.joins)?,
            first_at: self.first_at,
            latest_at: self.latest_at,
            certificate_not_after: self.certificate_not_after,
            latest,
        })
    }
}

#[derive(Default)]
pub(super) struct Instances {
    known: HashMap<Uuid, Instance>,
    /// Those of them that have a row.
    stored: HashSet<Uuid>,
    changed: HashSet<Uuid>,
}

impl Instances {
    /// Those that the entries join or resume.
    pub(super) async fn read(connection: &mut PgConnection, entries: &[Entry]) -> Result<Self, LedgerError> {
        let (mut ids, mut resumed) = (HashSet::new(), Vec::new());
        for entry in entries {
            for event in &entry.events {
                match event {
                    Event::JoinAccepted(join) => ids.extend([join.instance.0]),
                    Event::JoinResumed(join) => resumed.push((entry.stream.id, join.serial.as_str())),
                    _ => {}
                }
            }
        }
        ids.extend(instances_of(connection, resumed).await?);
        let ids: Vec<Uuid> = ids.into_iter().collect();
        let rows = sqlx::query_as!(InstanceRow, "SELECT * FROM instance_view WHERE instance_id = ANY($1)", &ids)
            .fetch_all(connection)
            .await?;
        let mut instances = Self::default();
        for row in rows {
            let instance = row.instance()?;
            instances.stored.insert(instance.id.0);
            instances.known.insert(instance.id.0, instance);
        }
        Ok(instances)
    }

    pub(super) fn apply(&mut self, entry: &Entry, event: &Event, token: Option<&Token>) {
        let Some(token) = token else { return };
        match event {
            Event::JoinAccepted(join) => {
                let id = join.instance.0;
                self.known.entry(id).or_insert_with(|| Instance::begin(entry, join, token)).join(entry, join);
                self.changed.insert(id);
            }
            Event::JoinResumed(resumed) => {
                let is_of = |instance: &&mut Instance| {
                    instance.token.0 == entry.stream.id
                        && instance.latest.iter().any(|seen| seen.serial == resumed.serial)
                };
                let Some(instance) = self.known.values_mut().find(is_of) else { return };
                instance.see(Authentication {
                    at: entry.decided_at,
                    address: entry.origin.address.clone(),
                    case: None,
                    generation: instance.generation,
                    serial: resumed.serial.clone(),
                    not_after: instance.certificate_not_after,
                });
                self.changed.insert(instance.id.0);
            }
            _ => {}
        }
    }

    pub(super) async fn write(self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        let (stored, new): (Vec<&Instance>, Vec<&Instance>) = self
            .changed
            .iter()
            .filter_map(|id| self.known.get(id))
            .partition(|instance| self.stored.contains(&instance.id.0));
        if !stored.is_empty() {
            update(connection, &stored).await?;
        }
        if !new.is_empty() {
            insert(connection, &new).await?;
        }
        Ok(())
    }
}

/// The lineages that certificates are of. What is resumed is a token's latest join: its certificate is in the view until
/// the next one.
async fn instances_of(
    connection: &mut PgConnection,
    certificates: Vec<(Uuid, &str)>,
) -> Result<Vec<Uuid>, LedgerError> {
    if certificates.is_empty() {
        return Ok(Vec::new());
    }
    let (tokens, serials): (Vec<Uuid>, Vec<&str>) = certificates.into_iter().unzip();
    let found = sqlx::query_scalar!(
        "SELECT c.instance_id FROM unnest($1::uuid[], $2::text[]) AS r(token_id, serial)
             JOIN certificate_view c USING (token_id, serial)",
        &tokens as _,
        &serials as _
    );
    Ok(found.fetch_all(connection).await?)
}

/// What is stored of each one's authentications.
fn latest(rows: &[&Instance]) -> Result<Vec<String>, LedgerError> {
    let latest = rows.iter().map(|row| {
        let stored: Vec<StoredAuthentication<'_>> = row.latest.iter().map(StoredAuthentication::from).collect();
        serde_json::to_string(&stored)
    });
    let latest = latest.collect::<Result<_, _>>();
    latest.map_err(|error| LedgerError::Corrupt(format!("an instance has no JSON form: {error}")))
}

/// Moves rows that exist.
async fn update(connection: &mut PgConnection, rows: &[&Instance]) -> Result<(), LedgerError> {
    sqlx::query!(
        "UPDATE instance_view i SET generation = j.generation, joins = j.joins, latest_at = j.latest_at,
             certificate_not_after = j.certificate_not_after, latest = j.latest
         FROM unnest($1::uuid[], $2::int8[], $3::int8[], $4::timestamptz[], $5::timestamptz[], $6::text[])
             AS j(instance_id, generation, joins, latest_at, certificate_not_after, latest)
         WHERE i.instance_id = j.instance_id",
        &rows.iter().map(|row| row.id.0).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| signed(row.generation)).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| signed(row.joins)).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.latest_at).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.certificate_not_after).collect::<Vec<_>>() as _,
        &latest(rows)? as _
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert(connection: &mut PgConnection, rows: &[&Instance]) -> Result<(), LedgerError> {
    sqlx::query!(
        "INSERT INTO instance_view (instance_id, token_id, token_name, bot_name, previous_instance_id, generation,
             joins, first_at, latest_at, certificate_not_after, latest)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::int8[], $7::int8[],
             $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::text[])",
        &rows.iter().map(|row| row.id.0).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.token.0).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.token_name.as_str()).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.bot_name.as_str()).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.previous.map(|id| id.0)).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| signed(row.generation)).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| signed(row.joins)).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.first_at).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.latest_at).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.certificate_not_after).collect::<Vec<_>>() as _,
        &latest(rows)? as _
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Which instances to list.
#[derive(Debug, Clone, Default)]
pub struct InstanceFilter {
    /// Of this bot.
    pub bot: Option<Name>,
    /// After which one to begin: a bot's name and an instance's id.
    pub after: Option<(String, InstanceId)>,
    /// How many at most.
    pub limit: u32,
}

impl Ledger {
    /// Instances in the order of bots, then ids; a page with fewer than `limit` is the last.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn instances(&self, filter: &InstanceFilter) -> Result<Vec<Instance>, LedgerError> {
        let limit = i64::from(filter.limit.clamp(1, 1000));
        let (after, id) = filter.after.as_ref().map_or(("", Uuid::nil()), |(bot, id)| (bot.as_str(), id.0));
        // A statement for each: one for both would go through the instances of all bots.
        let rows = match filter.bot.as_ref().map(Name::as_str) {
            Some(bot) if after > bot => Vec::new(),
            Some(bot) => {
                let id = if after < bot { Uuid::nil() } else { id };
                let rows = sqlx::query_as!(
                    InstanceRow,
                    "SELECT * FROM instance_view WHERE bot_name = $1 AND instance_id > $2 ORDER BY instance_id LIMIT $3",
                    bot,
                    id,
                    limit
                );
                in_time(rows.fetch_all(&mut *self.connection().await?)).await?
            }
            None => {
                let rows = sqlx::query_as!(
                    InstanceRow,
                    "SELECT * FROM instance_view WHERE (bot_name, instance_id) > ($1, $2)
                     ORDER BY bot_name, instance_id LIMIT $3",
                    after,
                    id,
                    limit
                );
                in_time(rows.fetch_all(&mut *self.connection().await?)).await?
            }
        };
        rows.into_iter().map(InstanceRow::instance).collect()
    }

    /// The instances of a token as they were at a moment, in the order of their ids, folded from its entries.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn instances_at(&self, token: TokenId, at: Timestamp) -> Result<Vec<Instance>, LedgerError> {
        let (mut tokens, mut instances) = (Tokens::default(), Instances::default());
        let is_past = |entry: &Entry| entry.recorded_at <= at;
        self.replay_while(StreamId::from(token), is_past, |entry| {
            for event in &entry.events {
                tokens.apply(&entry, event);
                instances.apply(&entry, event, tokens.of(&entry));
            }
            Ok::<_, LedgerError>(())
        })
        .await?;
        let mut found: Vec<Instance> = instances.known.into_values().collect();
        found.sort_by_key(|instance| instance.id);
        Ok(found)
    }

    /// One instance, also of the past.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn instance(&self, id: InstanceId) -> Result<Option<Instance>, LedgerError> {
        let row = sqlx::query_as!(InstanceRow, "SELECT * FROM instance_view WHERE instance_id = $1", id.0);
        in_time(row.fetch_optional(&mut *self.connection().await?)).await?.map(InstanceRow::instance).transpose()
    }
}

//! Appends that reach beyond one stream: several streams at once, and what concerns tokens from outside, locks and bots.
//!
//! A lock or a changed bot must stop a join that another node decides from its cache. So its append moves the *fence* of
//! every token that it concerns, in the same transaction. A token that only begins to be concerned at that moment (it is
//! being created, or gets the key) is not visible yet; both sides then meet at the claim of the name or key: whoever
//! comes second waits, and sees the other.

use std::time::Duration;

use join_domain::{
    envelope::StreamKind,
    resource::LockTarget,
    state::{Namespace, State},
};
use sqlx::{Connection as _, PgConnection, PgPool};
use uuid::Uuid;

use crate::{
    AppendError,
    append::{Prepared, PreparedAppend, Row},
    error::{append_refused, constraint, is_connection_lost, sqlstate},
    head::decide_log,
    lease::{Lease, in_time, within},
    row::{ServerRun, unsigned},
    secret::change_keys,
    statement,
};

/// Holds, for the length of a transaction, claims that no stream has. No stream with claims has this id.
const NOBODY: Uuid = Uuid::nil();

/// True for appends that one row's statement can't make alone.
pub(crate) fn is_needed(append: &PreparedAppend) -> bool {
    let reaches_out =
        |part: &Prepared| part.new_bot.is_some() || matches!(part.row.stream.kind, StreamKind::Lock | StreamKind::Bot);
    let releases = |part: &Prepared| !part.row.released.is_empty();
    append.parts.len() > 1
        || !append.keys.is_empty()
        || append.log.is_some()
        || append.parts.iter().any(|part| reaches_out(part) || releases(part))
}

/// Plans go by index, however large the tables were when they were made. And the server ends a wait for a row before this
/// node gives up: otherwise it would keep what it took.
const BEGIN: &str = "BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL statement_timeout = '15s'";

/// How long the beginning may take: all of it has to be over before what an append says of its time is not true any more.
const TO_BEGIN: Duration = Duration::from_secs(5);

/// Appends all or nothing, and returns where. Fences that moved are set in its parts.
pub(crate) async fn append(pool: &PgPool, append: &mut PreparedAppend) -> Result<ServerRun, AppendError> {
    // Before the commit is sent, a lost connection means that nothing happened.
    let unavailable = |error: sqlx::Error| AppendError::Unavailable(error.to_string());
    let mut lease = Lease::of(pool).await.map_err(unavailable)?;
    let mut transaction = within(TO_BEGIN, lease.begin_with(BEGIN)).await.map_err(unavailable)?;
    let server = match in_time(append_in(&mut transaction, append)).await {
        Ok(server) => server,
        Err(Failure::Append(error)) => {
            in_time(transaction.rollback()).await.map_err(unavailable)?;
            return Err(error);
        }
        Err(Failure::Sql(error)) if is_connection_lost(&error) => return Err(unavailable(error)),
        Err(Failure::Sql(error)) => {
            in_time(transaction.rollback()).await.map_err(unavailable)?;
            let rows: Vec<&Row> = append.parts.iter().map(|part| &part.row).collect();
            return Err(taken_claim(&mut lease, &rows, &error).await.unwrap_or_else(|| append_refused(&error)));
        }
    };
    let committed = in_time(transaction.commit()).await.map_err(|error| match is_connection_lost(&error) {
        true => AppendError::OutcomeUnknown(error.to_string()),
        false => append_refused(&error),
    });
    committed.map(|()| server)
}

enum Failure {
    Sql(sqlx::Error),
    Append(AppendError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

async fn append_in(connection: &mut PgConnection, append: &mut PreparedAppend) -> Result<ServerRun, Failure> {
    let concerns = Concerns::of(&append.parts);
    take_released(connection, &append.parts).await?;
    concerns.meet(connection).await?;
    let concerned = concerns.take_tokens(connection).await?;
    let rows: Vec<&Row> = append.parts.iter().map(|part| &part.row).collect();
    let appended = statement::append_in_order(connection, &rows).await?;
    let appended = appended.into_iter().collect::<Option<Vec<_>>>();
    let server = appended.and_then(|all| all.first().copied()).ok_or(Failure::Append(AppendError::Conflict))?;
    change_keys(connection, &append.keys).await?;
    if let Some(decision) = &append.log
        && !decide_log(connection, decision).await?
    {
        return Err(Failure::Append(AppendError::Conflict));
    }
    let moved = concerns.move_fences(connection, &concerned).await?;
    for (stream, fence) in moved {
        append.parts.iter_mut().filter(|part| part.after.stream.id == stream).for_each(|part| part.after.fence = fence);
    }
    Ok(server)
}

/// Takes the claims of streams that release some: claims come before guard rows, as for a lock that is about them.
async fn take_released(connection: &mut PgConnection, parts: &[Prepared]) -> Result<(), sqlx::Error> {
    let releasing = parts.iter().filter(|part| !part.row.released.is_empty()).map(|part| part.row.stream.id);
    let releasing: Vec<Uuid> = releasing.collect();
    if !releasing.is_empty() {
        let take = "SELECT FROM claim WHERE stream_id = ANY($1) ORDER BY namespace, value FOR NO KEY UPDATE";
        sqlx::query(take).bind(releasing).execute(connection).await?;
    }
    Ok(())
}

/// What an append concerns beyond its own streams.
#[derive(Default)]
struct Concerns {
    /// Names and keys that locks and bots of the append are about.
    namespaces: Vec<&'static str>,
    values: Vec<String>,
    bots: Vec<Uuid>,
    instances: Vec<Uuid>,
    /// True when there is a lock or a bot whose tokens must learn of it.
    outside: bool,
    /// Bots that tokens of the append get, by name and id.
    new_bots: Vec<(String, Uuid)>,
    /// Bots that end: no live token may have one.
    ended_bots: Vec<Uuid>,
}

impl Concerns {
    fn of(prepared: &[Prepared]) -> Self {
        let mut concerns = Self::default();
        for Prepared { row, after, new_bot, .. } in prepared {
            match &after.state {
                State::Lock(lock) => {
                    concerns.outside = true;
                    match &lock.target {
                        LockTarget::JoinToken(name) => concerns.claim(Namespace::TokenName, name.to_string()),
                        LockTarget::User(name) => concerns.claim(Namespace::BotName, name.to_string()),
                        LockTarget::PublicKey(fingerprint) => concerns.claim(Namespace::Key, fingerprint.clone()),
                        // Ids of lineages are random: nobody can lock one that is not bound yet.
                        LockTarget::BotInstanceId(id) => concerns.instances.push(id.0),
                    }
                }
                // A bot that begins has no tokens yet.
                State::Bot(bot) if row.first_version > 1 => {
                    concerns.outside = true;
                    concerns.claim(Namespace::BotName, bot.name.to_string());
                    concerns.bots.push(bot.id.0);
                    concerns.ended_bots.extend((!bot.live).then_some(bot.id.0));
                }
                State::Token(token) => {
                    concerns.new_bots.extend(new_bot.map(|bot| (token.spec.bot_name.to_string(), bot.0)));
                }
                State::Bot(_) | State::Administrator(_) | State::Cluster => {}
            }
        }
        concerns.new_bots.sort();
        concerns
    }

    fn claim(&mut self, namespace: Namespace, value: String) {
        self.namespaces.push(namespace.as_str());
        self.values.push(value);
    }

    async fn meet(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        if self.outside {
            let meet = sqlx::query_file!("sql/meet.sql", &self.namespaces as _, &self.values, NOBODY);
            meet.execute(&mut *connection).await?;
        }
        for (name, id) in &self.new_bots {
            let meet = sqlx::query_file_scalar!("sql/meet_bot.sql", name);
            let found = meet.fetch_optional(&mut *connection).await?;
            if found != Some(*id) {
                return Err(Failure::Append(AppendError::Conflict));
            }
        }
        if !self.ended_bots.is_empty() {
            // A token that got the bot since it was decided that none has it.
            let taken = sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT FROM stream WHERE kind = 'token' AND live AND bot_id = ANY($1)) AS "taken!""#,
                &self.ended_bots
            );
            if taken.fetch_one(&mut *connection).await? {
                return Err(Failure::Append(AppendError::Conflict));
            }
        }
        Ok(())
    }

    /// Takes the tokens that must learn of it, before it gets its place in the log: a join that holds one decided without
    /// it, and comes first.
    async fn take_tokens(&self, connection: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
        if !self.outside {
            return Ok(Vec::new());
        }
        let (namespaces, values) = (&self.namespaces, &self.values);
        let tokens =
            sqlx::query_file_scalar!("sql/concerned_tokens.sql", namespaces as _, values, &self.bots, &self.instances);
        tokens.fetch_all(connection).await
    }

    /// Moves their fences, and returns the new ones.
    async fn move_fences(&self, connection: &mut PgConnection, tokens: &[Uuid]) -> Result<Vec<(Uuid, u64)>, Failure> {
        if !self.outside {
            return Ok(Vec::new());
        }
        let moved = sqlx::query!(
            "UPDATE stream SET fence = fence + 1 WHERE stream_id = ANY($1) RETURNING stream_id, fence",
            tokens
        );
        let moved = moved.fetch_all(&mut *connection).await?;
        sqlx::query_file!("sql/part.sql", NOBODY).execute(&mut *connection).await?;
        let fence = |fence: i64| unsigned(fence).map_err(|error| Failure::Append(error.into()));
        moved.into_iter().map(|row| Ok((row.stream_id, fence(row.fence)?))).collect()
    }
}

/// Which claim of `rows` another stream has, when `error` says that one is taken; none when it was given up meanwhile.
pub(crate) async fn taken_claim(
    connection: &mut PgConnection,
    rows: &[&Row],
    error: &sqlx::Error,
) -> Option<AppendError> {
    if sqlstate(error).as_deref() != Some("23505") || constraint(error) != Some("claim_pkey") {
        return None;
    }
    for row in rows {
        for claimed in &row.claimed {
            let claim = &claimed.claim;
            let holder = sqlx::query_scalar!(
                "SELECT stream_id FROM claim WHERE namespace = $1 AND value = $2",
                claim.namespace.as_str(),
                claim.value
            );
            let holder: Option<Uuid> = in_time(holder.fetch_optional(&mut *connection)).await.ok()?;
            if holder.is_some_and(|holder| holder != row.stream.id) {
                return Some(AppendError::ClaimTaken { namespace: claim.namespace, value: claim.value.clone() });
            }
        }
    }
    None
}

//! The append as one statement, for one stream or for many at once.

use join_domain::{Timestamp, envelope::StreamKind};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    SecretChange,
    append::Row,
    row::{ServerRun, signed},
};

/// Appends `rows`, at most one of each stream and in any order, and returns where each of them was appended: none is a
/// conflict, and leaves nothing behind. Outside of a transaction it returns when the server is ready again, which is after
/// the commit.
pub(crate) async fn append(
    connection: &mut PgConnection,
    rows: &[&Row],
) -> Result<Vec<Option<ServerRun>>, sqlx::Error> {
    match PlainEntries::of(rows) {
        Some(plain) => append_plain(connection, &plain, rows.len()).await,
        None => append_in_order(connection, rows).await,
    }
}

/// The same for rows of any kind, which history tells in their order.
pub(crate) async fn append_in_order(
    connection: &mut PgConnection,
    rows: &[&Row],
) -> Result<Vec<Option<ServerRun>>, sqlx::Error> {
    let done = append_any(connection, &Arguments::of(rows)).await?;
    let mut appended = vec![None; rows.len()];
    for Appended { ord, server } in done {
        if let Some(done) = place(ord).and_then(|place| appended.get_mut(place)) {
            *done = Some(ServerRun(server));
        }
    }
    Ok(appended)
}

/// The place in an array, of SQL's number for it.
fn place(ord: i64) -> Option<usize> {
    usize::try_from(ord).ok()?.checked_sub(1)
}

/// The statement of plain entries, which are nearly all: it does nothing that those don't need.
async fn append_plain(
    connection: &mut PgConnection,
    plain: &PlainEntries<'_>,
    rows: usize,
) -> Result<Vec<Option<ServerRun>>, sqlx::Error> {
    let append = sqlx::query_file_scalar!(
        "sql/append_plain.sql",
        &plain.id as _,
        &plain.first_version as _,
        &plain.last_version as _,
        &plain.fence as _,
        &plain.instance_id as _,
        &plain.recorded_at as _,
        &plain.envelope as _,
        &plain.attempt as _,
        &plain.begins_lineage as _,
        &plain.state as _,
        plain.server.0,
    );
    let ords = append.fetch_one(connection).await?;
    let mut appended = vec![None; rows];
    for place in ords.into_iter().filter_map(place).filter_map(|sorted| plain.places.get(sorted)) {
        if let Some(done) = appended.get_mut(*place) {
            *done = Some(plain.server);
        }
    }
    Ok(appended)
}

/// Plain entries, sorted by stream, as columns.
struct PlainEntries<'r> {
    /// Where each of them stands among the rows.
    places: Vec<usize>,
    id: Vec<Uuid>,
    first_version: Vec<i64>,
    last_version: Vec<i64>,
    fence: Vec<i64>,
    instance_id: Vec<Option<Uuid>>,
    recorded_at: Vec<Timestamp>,
    envelope: Vec<&'r str>,
    attempt: Vec<Option<Uuid>>,
    /// Empty when none does.
    begins_lineage: Vec<bool>,
    /// Empty when none is stored.
    state: Vec<Option<&'r str>>,
    /// Where they all were read.
    server: ServerRun,
}

impl<'r> PlainEntries<'r> {
    /// None when there is another kind of row among them.
    fn of(rows: &[&'r Row]) -> Option<Self> {
        let server = rows.first()?.server?;
        if !rows.iter().all(|row| is_plain(row) && row.server == Some(server)) {
            return None;
        }
        let mut by_stream: Vec<(usize, &Row)> = rows.iter().copied().enumerate().collect();
        by_stream.sort_unstable_by_key(|(_, row)| row.stream.id);
        let sorted = || by_stream.iter().map(|(_, row)| *row);
        let begins_lineage = match rows.iter().any(|row| row.lineage.is_some()) {
            true => sorted().map(|row| row.lineage.is_some()).collect(),
            false => Vec::new(),
        };
        let state = match rows.iter().any(|row| row.state.is_some()) {
            true => sorted().map(|row| row.state.as_deref()).collect(),
            false => Vec::new(),
        };
        Some(Self {
            id: sorted().map(|row| row.stream.id).collect(),
            first_version: sorted().map(|row| signed(row.first_version)).collect(),
            last_version: sorted().map(|row| signed(row.last_version)).collect(),
            fence: sorted().map(|row| signed(row.fence)).collect(),
            instance_id: sorted().map(|row| row.columns.instance_id).collect(),
            recorded_at: sorted().map(|row| row.recorded_at).collect(),
            envelope: sorted().map(|row| row.envelope.as_str()).collect(),
            attempt: sorted().map(|row| row.attempt).collect(),
            begins_lineage,
            state,
            server,
            places: by_stream.iter().map(|(place, _)| *place).collect(),
        })
    }
}

/// True for an entry of a live token that exists, when no claim or secret comes or goes. One that gets a bot is appended in
/// a transaction, with [`append_in_order`].
fn is_plain(row: &Row) -> bool {
    row.stream.kind == StreamKind::Token
        && row.columns.live
        && row.first_version > 1
        && row.claimed.is_empty()
        && row.released.is_empty()
        && row.secrets.is_empty()
}

/// A row that was appended, and where.
struct Appended {
    ord: i64,
    server: Timestamp,
}

/// The statement of any append.
async fn append_any(connection: &mut PgConnection, arguments: &Arguments<'_>) -> Result<Vec<Appended>, sqlx::Error> {
    let Arguments { streams, claimed, released, kept, forgotten } = arguments;
    let append = sqlx::query_file_as!(
        Appended,
        "sql/append.sql",
        &streams.ord as _,
        &streams.id as _,
        &streams.kind as _,
        &streams.first_version as _,
        &streams.last_version as _,
        &streams.fence as _,
        &streams.name as _,
        &streams.live as _,
        &streams.bot_id as _,
        &streams.instance_id as _,
        &streams.lock_target as _,
        &streams.expires_at as _,
        &streams.state as _,
        &streams.recorded_at as _,
        &streams.envelope as _,
        &streams.attempt as _,
        &streams.lineage as _,
        &claimed.ord as _,
        &claimed.namespace as _,
        &claimed.value as _,
        &claimed.unlocked as _,
        &released.ord as _,
        &released.namespace as _,
        &released.value as _,
        &kept.ord as _,
        &kept.purpose as _,
        &kept.sealed as _,
        &forgotten.ord as _,
        &forgotten.purpose as _,
        &streams.server as _,
    );
    append.fetch_all(connection).await
}

/// The rows as columns.
#[derive(Default)]
struct Arguments<'r> {
    streams: Streams<'r>,
    claimed: Claims<'r>,
    released: Claims<'r>,
    kept: Secrets<'r>,
    forgotten: Secrets<'r>,
}

#[derive(Default)]
struct Streams<'r> {
    ord: Vec<i64>,
    id: Vec<Uuid>,
    kind: Vec<&'r str>,
    first_version: Vec<i64>,
    last_version: Vec<i64>,
    fence: Vec<i64>,
    name: Vec<&'r str>,
    live: Vec<bool>,
    bot_id: Vec<Option<Uuid>>,
    instance_id: Vec<Option<Uuid>>,
    lock_target: Vec<Option<&'r str>>,
    expires_at: Vec<Option<Timestamp>>,
    state: Vec<Option<&'r str>>,
    recorded_at: Vec<Timestamp>,
    envelope: Vec<&'r str>,
    attempt: Vec<Option<Uuid>>,
    lineage: Vec<Option<Uuid>>,
    server: Vec<Option<Timestamp>>,
}

#[derive(Default)]
struct Claims<'r> {
    ord: Vec<i64>,
    namespace: Vec<&'r str>,
    value: Vec<&'r str>,
    unlocked: Vec<bool>,
}

#[derive(Default)]
struct Secrets<'r> {
    ord: Vec<i64>,
    purpose: Vec<&'r str>,
    sealed: Vec<&'r [u8]>,
}

impl<'r> Arguments<'r> {
    fn of(rows: &[&'r Row]) -> Self {
        let mut arguments = Self::default();
        let mut rows: Vec<(i64, &Row)> = (1..).zip(rows.iter().copied()).collect();
        rows.sort_unstable_by_key(|(_, row)| row.stream.id);
        for (ord, row) in rows {
            arguments.streams.push(ord, row);
            for claimed in &row.claimed {
                let claims = &mut arguments.claimed;
                claims.push(ord, &claimed.claim);
                claims.unlocked.push(claimed.unlocked);
            }
            row.released.iter().for_each(|claim| arguments.released.push(ord, claim));
            for change in &row.secrets {
                match change {
                    SecretChange::Put { purpose, sealed } => arguments.kept.push(ord, purpose, sealed),
                    SecretChange::Delete { purpose } => arguments.forgotten.push(ord, purpose, &[]),
                }
            }
        }
        arguments
    }
}

impl<'r> Streams<'r> {
    fn push(&mut self, ord: i64, row: &'r Row) {
        self.ord.push(ord);
        self.id.push(row.stream.id);
        self.kind.push(row.stream.kind.as_str());
        self.first_version.push(signed(row.first_version));
        self.last_version.push(signed(row.last_version));
        self.fence.push(signed(row.fence));
        self.name.push(&row.columns.name);
        self.live.push(row.columns.live);
        self.bot_id.push(row.columns.bot_id);
        self.instance_id.push(row.columns.instance_id);
        self.lock_target.push(row.columns.lock_target.as_deref());
        self.expires_at.push(row.columns.expires_at);
        self.state.push(row.state.as_deref());
        self.recorded_at.push(row.recorded_at);
        self.envelope.push(&row.envelope);
        self.attempt.push(row.attempt);
        self.lineage.push(row.lineage);
        self.server.push(row.server.map(|server| server.0));
    }
}

impl<'r> Claims<'r> {
    fn push(&mut self, ord: i64, claim: &'r join_domain::state::Claim) {
        self.ord.push(ord);
        self.namespace.push(claim.namespace.as_str());
        self.value.push(&claim.value);
    }
}

impl<'r> Secrets<'r> {
    fn push(&mut self, ord: i64, purpose: &'r str, sealed: &'r [u8]) {
        self.ord.push(ord);
        self.purpose.push(purpose);
        self.sealed.push(sealed);
    }
}

//! The append as one statement, for one stream or for many at once.

use join_domain::{Timestamp, envelope::StreamKind};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    SecretChange,
    append::Row,
    row::{ServerRun, signed},
};

/// Appends `rows`, at most one of each stream, and returns where each of them was appended: none is a conflict, and
/// leaves nothing behind. History tells them in their order.
pub(crate) async fn append(
    connection: &mut PgConnection,
    rows: &[&Row],
) -> Result<Vec<Option<ServerRun>>, sqlx::Error> {
    let arguments = Arguments::of(rows);
    // Not before the server is ready again, which is after the commit.
    let answers = if arguments.only_go_on() {
        go_on(connection, &arguments.streams).await?
    } else {
        begin_or_go_on(connection, &arguments).await?
    };

    let mut appended = vec![None; rows.len()];
    for Answer { ord, server } in answers {
        let index = usize::try_from(ord).ok().and_then(|ord| ord.checked_sub(1));
        if let Some(done) = index.and_then(|index| appended.get_mut(index)) {
            *done = Some(ServerRun(server));
        }
    }
    Ok(appended)
}

/// A row that was appended, and where.
struct Answer {
    ord: i64,
    server: Timestamp,
}

/// The statement of entries that tokens go on with.
async fn go_on(connection: &mut PgConnection, streams: &Streams<'_>) -> Result<Vec<Answer>, sqlx::Error> {
    let append = sqlx::query_file_as!(
        Answer,
        "sql/append_next.sql",
        &streams.ord as _,
        &streams.id as _,
        &streams.first_version as _,
        &streams.last_version as _,
        &streams.fence as _,
        &streams.bot_id as _,
        &streams.instance_id as _,
        &streams.state as _,
        &streams.recorded_at as _,
        &streams.envelope as _,
        &streams.attempt as _,
        &streams.lineage as _,
        &streams.server as _,
    );
    append.fetch_all(connection).await
}

/// The statement of any append. It lists the streams again: each query is checked at build time with its own arguments.
async fn begin_or_go_on(connection: &mut PgConnection, arguments: &Arguments<'_>) -> Result<Vec<Answer>, sqlx::Error> {
    let Arguments { streams, claimed, released, kept, forgotten } = arguments;
    let append = sqlx::query_file_as!(
        Answer,
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
    attempt: Vec<Option<&'r str>>,
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

    /// True when every stream is a live token that exists, and no claim or secret comes or goes.
    fn only_go_on(&self) -> bool {
        let Self { streams, claimed, released, kept, forgotten } = self;
        [&claimed.ord, &released.ord, &kept.ord, &forgotten.ord].iter().all(|ords| ords.is_empty())
            && streams.kind.iter().all(|kind| *kind == StreamKind::Token.as_str())
            && streams.live.iter().all(|live| *live)
            && streams.first_version.iter().all(|version| *version > 1)
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
        self.attempt.push(row.attempt.as_deref());
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

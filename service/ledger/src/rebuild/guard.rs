//! Guard rows, snapshots and claims, compared with the entries or made from them.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use join_domain::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, FromRow as _, PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{
    Comparison, Progress,
    fold::{self, Folded, Sink},
    share,
};
use crate::{
    Ledger, LedgerError,
    copy::{Field, Rows},
    error::is_held,
    row::{Columns, StreamRow, signed, state_text, unsigned},
};

/// Tables that a rebuild empties, in the order in which an append that reaches out takes them.
const REBUILT: &str = "claim, stream, lineage, snapshot";

/// Until a rebuild that did not get its tables tries again: appends come in between.
const AGAIN: Duration = Duration::from_secs(2);

/// Compares as of one moment.
pub(super) async fn compare(
    ledger: &Ledger,
    progress: &mut (impl FnMut(Progress) + Send),
) -> Result<Comparison, LedgerError> {
    let mut lease = ledger.connection().await?;
    let mut connection = lease.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    share(&mut connection, REBUILT).await?;
    let mut compared = Compared::default();
    let sums = fold::all(&mut connection, progress, &mut compared).await?;
    let counted = sqlx::query(
        "SELECT (SELECT count(*) FROM stream) AS stream, (SELECT count(*) FROM snapshot) AS snapshot,
             (SELECT count(*) FROM claim) AS claim",
    );
    let counted = counted.fetch_one(&mut *connection).await?;
    let Compared { mut comparison, claims } = compared;
    // A step numbers all that is below, and moves the horizon to where it looked: see number.sql.
    let left_out = sqlx::query_scalar(
        "SELECT coalesce(sum(cardinality(o.stream_ids)), 0) FROM outbox o, sequencer s
         WHERE o.xid < s.horizon AND s.horizon_of = (SELECT system_identifier FROM pg_control_system())",
    );
    let left_out = unsigned(left_out.fetch_one(&mut *connection).await?)?;
    if left_out > 0 {
        let what = "nothing gives them a place in the log, as their notes are older than what it has passed: rebuild";
        comparison.differs("outbox", format!("{left_out} entries"), what);
    }
    for (table, folded) in [("stream", sums.streams), ("snapshot", sums.streams), ("claim", claims)] {
        let stored = unsigned(counted.try_get(table)?)?;
        if stored != folded {
            comparison.differs(table, format!("{stored} rows"), format!("the entries give {folded}"));
        }
    }
    (comparison.entries, comparison.streams) = (sums.entries, sums.streams);
    Ok(comparison)
}

/// Streams that were compared with their rows.
#[derive(Default)]
struct Compared {
    comparison: Comparison,
    claims: u64,
}

impl Sink for Compared {
    async fn take(&mut self, connection: &mut PgConnection, streams: Vec<Folded>) -> Result<(), LedgerError> {
        let ids: Vec<Uuid> = streams.iter().map(|folded| folded.stream.id).collect();
        let mut stored = stored_rows(connection, &ids).await?;
        for folded in streams {
            for version in &folded.misfiled {
                let what = "its row says another time or another attempt than the entry";
                self.comparison.differs("entry", format!("{} version {version}", folded.stream), what);
            }
            self.claims = self.claims.saturating_add(folded.state.claims().len() as u64);
            match stored.remove(&folded.stream.id) {
                Some(row) => compare_row(&mut self.comparison, &folded, &row)?,
                None => self.comparison.differs(
                    "stream",
                    folded.stream.to_string(),
                    "there is no guard row, or no snapshot",
                ),
            }
        }
        Ok(())
    }
}

struct StoredRow {
    row: PgRow,
    /// True when its lineage, if it has one, leads to it.
    is_found: bool,
    claims: BTreeSet<(String, String)>,
}

const STORED: &str = "
SELECT *, instance_id IS NULL OR EXISTS (
    SELECT FROM lineage l WHERE l.instance_id = s.instance_id AND l.stream_id = s.stream_id
) AS is_found FROM folded s WHERE stream_id = ANY($1)";

async fn stored_rows(connection: &mut PgConnection, ids: &[Uuid]) -> Result<HashMap<Uuid, StoredRow>, LedgerError> {
    let rows = sqlx::query(STORED).bind(ids).fetch_all(&mut *connection).await?;
    let mut stored = HashMap::new();
    for row in rows {
        let is_found = row.try_get("is_found")?;
        stored.insert(row.try_get("stream_id")?, StoredRow { row, is_found, claims: BTreeSet::new() });
    }
    let claims = sqlx::query("SELECT stream_id, namespace, value FROM claim WHERE stream_id = ANY($1)");
    for claim in claims.bind(ids).fetch_all(connection).await? {
        if let Some(stored) = stored.get_mut(&claim.try_get("stream_id")?) {
            stored.claims.insert((claim.try_get("namespace")?, claim.try_get("value")?));
        }
    }
    Ok(stored)
}

fn compare_row(comparison: &mut Comparison, folded: &Folded, stored: &StoredRow) -> Result<(), LedgerError> {
    let name = folded.stream.to_string();
    let row = &stored.row;
    // The text of a state may be an older version's; what it says must be the same.
    match StreamRow::from_row(row)?.stored() {
        Ok(stored) if stored.state == folded.state => {}
        Ok(_) => comparison.differs("stream", name.clone(), "its state is not the fold of its entries"),
        Err(error) => comparison.differs("stream", name.clone(), error.to_string()),
    }
    let (expected, found) = (
        Columns::of(&folded.state),
        Columns {
            name: row.try_get("name")?,
            live: row.try_get("live")?,
            bot_id: row.try_get("bot_id")?,
            instance_id: row.try_get("instance_id")?,
            lock_target: row.try_get("lock_target")?,
            expires_at: row.try_get("expires_at")?,
        },
    );
    let kind: String = row.try_get("kind")?;
    let version = unsigned(row.try_get("version")?)?;
    if expected != found || kind != folded.stream.kind.as_str() || version != folded.version {
        let what = format!("a column differs: the entries give version {} and {expected:?}", folded.version);
        comparison.differs("stream", name.clone(), what);
    }
    if !stored.is_found {
        comparison.differs("lineage", name.clone(), "its lineage does not lead to it");
    }
    let claims: BTreeSet<(String, String)> =
        folded.state.claims().into_iter().map(|claim| (claim.namespace.as_str().to_owned(), claim.value)).collect();
    if claims != stored.claims {
        comparison.differs("claim", name, format!("the entries give {claims:?}"));
    }
    Ok(())
}

/// Appends wait for the tables that it empties first, so that it reads all that they committed.
pub(super) async fn rebuild(ledger: &Ledger, progress: &mut (impl FnMut(Progress) + Send)) -> Result<(), LedgerError> {
    let mut lease = ledger.connection().await?;
    let mut transaction = loop {
        let mut transaction = lease.begin().await?;
        match empty(&mut transaction).await {
            Ok(()) => break transaction,
            Err(error) if is_held(&error) => transaction.rollback().await?,
            Err(error) => return Err(error.into()),
        }
        let holders = holders(&mut lease).await?;
        tracing::warn!("the rebuild waits for who has the tables in use, and tries again: {}", holders.join("; "));
        tokio::time::sleep(AGAIN).await;
    };
    fill(&mut transaction, ledger.now(), progress).await?;
    // The next step of the sequencer looks at every note, in case one was passed.
    sqlx::query("UPDATE sequencer SET horizon = '0'").execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}

/// Takes the tables and empties them. Whoever wants to append waits behind who waits for a table, and gives up after a
/// second; a dump may have them for hours.
async fn empty(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    for sql in [
        "SET LOCAL lock_timeout = '500ms'".to_owned(),
        format!("LOCK TABLE {REBUILT} IN ACCESS EXCLUSIVE MODE"),
        "SET LOCAL lock_timeout = DEFAULT".to_owned(),
        format!("TRUNCATE {REBUILT}"),
    ] {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Who has the tables in use: those first whose transactions are the oldest, or are hidden from this role.
async fn holders(connection: &mut PgConnection) -> Result<Vec<String>, LedgerError> {
    let holders = sqlx::query_scalar(
        "SELECT format('process %s of %s (%s)', pid, usename, application_name) FROM pg_stat_activity
         WHERE pid <> pg_backend_pid() AND pid IN (
             SELECT pid FROM pg_locks WHERE locktype = 'relation' AND granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND relation = ANY (string_to_array($1, ', ')::regclass[]))
         ORDER BY xact_start NULLS FIRST LIMIT 3",
    );
    Ok(holders.bind(REBUILT).fetch_all(connection).await?)
}

/// Makes guard rows, snapshots and claims from the entries, in tables that are empty. `now` is later than any fence
/// before it.
pub(crate) async fn fill(
    connection: &mut PgConnection,
    now: Timestamp,
    progress: &mut (impl FnMut(Progress) + Send),
) -> Result<(), LedgerError> {
    fold::all(connection, progress, &mut Filling { fence: now.timestamp_micros() }).await?;
    Ok(())
}

/// Streams that become rows.
struct Filling {
    fence: i64,
}

impl Sink for Filling {
    async fn take(&mut self, connection: &mut PgConnection, streams: Vec<Folded>) -> Result<(), LedgerError> {
        if streams.is_empty() {
            return Ok(());
        }
        let (mut rows, mut snapshots, mut claims, mut lineages) = (Rows::new(), Rows::new(), Rows::new(), Rows::new());
        for Folded { stream, version, state, .. } in &streams {
            let columns = Columns::of(state);
            rows.push([
                Field::Uuid(stream.id),
                Field::Text(stream.kind.as_str()),
                Field::Int(signed(*version)),
                Field::Int(self.fence),
                Field::Text(&columns.name),
                Field::Bool(columns.live),
                Field::or_null(columns.bot_id, Field::Uuid),
                Field::or_null(columns.instance_id, Field::Uuid),
                Field::or_null(columns.lock_target.as_deref(), Field::Text),
                Field::or_null(columns.expires_at, Field::Time),
            ]);
            snapshots.push([Field::Uuid(stream.id), Field::Int(signed(*version)), Field::Text(&state_text(state)?)]);
            if let Some(instance) = columns.instance_id {
                lineages.push([Field::Uuid(instance), Field::Uuid(stream.id)]);
            }
            for claim in state.claims() {
                claims.push([Field::Text(claim.namespace.as_str()), Field::Text(&claim.value), Field::Uuid(stream.id)]);
            }
        }
        let into = "COPY stream (stream_id, kind, version, fence, name, live, bot_id, instance_id, lock_target,
            expires_at) FROM STDIN (FORMAT binary)";
        rows.send(connection, into).await?;
        snapshots.send(connection, "COPY snapshot (stream_id, version, state) FROM STDIN (FORMAT binary)").await?;
        claims.send(connection, "COPY claim (namespace, value, stream_id) FROM STDIN (FORMAT binary)").await?;
        lineages.send(connection, "COPY lineage (instance_id, stream_id) FROM STDIN (FORMAT binary)").await
    }
}

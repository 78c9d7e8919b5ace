//! What is: guard rows by id, name, key, kind and label.

use std::{fmt, str::FromStr};

use join_domain::{
    Timestamp,
    envelope::{StreamId, StreamKind},
    id::Name,
    resource::Labels,
    state::Namespace,
};
use uuid::Uuid;

use crate::{
    Ledger, LedgerError, Stored,
    lease::in_time,
    row::{StreamRow, folded},
};

/// Where the next page of a list begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Name of the last one seen; empty for kinds without names.
    pub name: String,
    /// Its id.
    pub id: Uuid,
}

/// As clients get it and send it back: `NAME/ID`.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.id)
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (name, id) = text.split_once('/').ok_or(NotACursor)?;
        if !name.is_empty() {
            name.parse::<Name>().map_err(|_| NotACursor)?;
        }
        Ok(Self { name: name.to_owned(), id: id.parse().map_err(|_| NotACursor)? })
    }
}

/// A cursor that no page ended with.
#[derive(Debug, thiserror::Error)]
#[error("not one that a page ended with")]
pub struct NotACursor;

/// Which streams to list.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Labels that they must have, all of them.
    pub selector: Labels,
    /// After which one to begin.
    pub after: Option<Cursor>,
    /// How many at most.
    pub limit: u32,
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Listed {
    /// In the order of names, then ids.
    pub streams: Vec<Stored>,
    /// Where to go on; none at the end.
    pub next: Option<Cursor>,
}

impl Ledger {
    /// A stream, dead or alive.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn load(&self, stream: StreamId) -> Result<Option<Stored>, LedgerError> {
        let row = folded!(r#"WHERE stream_id = $1 AND kind = $2"#, stream.id, stream.kind.as_str());
        in_time(row.fetch_optional(&mut *self.connection().await?)).await?.map(StreamRow::stored).transpose()
    }

    /// Streams, dead or alive, in the order of ids.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn load_all(&self, streams: &[StreamId]) -> Result<Vec<Stored>, LedgerError> {
        let ids: Vec<Uuid> = streams.iter().map(|stream| stream.id).collect();
        let rows = folded!(r#"WHERE stream_id = ANY($1) ORDER BY stream_id"#, &ids);
        in_time(rows.fetch_all(&mut *self.connection().await?)).await?.into_iter().map(StreamRow::stored).collect()
    }

    /// The live stream that has a name or key.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn find(&self, namespace: Namespace, value: &str) -> Result<Option<Stored>, LedgerError> {
        let row =
            folded!("JOIN claim USING (stream_id) WHERE namespace = $1 AND value = $2", namespace.as_str(), value);
        in_time(row.fetch_optional(&mut *self.connection().await?)).await?.map(StreamRow::stored).transpose()
    }

    /// What `pick` takes of each live stream of one kind that has some labels, as it is or as it was at a moment.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn list_all<T>(
        &self,
        kind: StreamKind,
        selector: Labels,
        at: Option<Timestamp>,
        pick: impl Fn(&Stored) -> Option<T>,
    ) -> Result<Vec<T>, LedgerError> {
        let mut filter = ListFilter { selector, after: None, limit: 1000 };
        let mut picked = Vec::new();
        loop {
            let page = match at {
                None => self.list(kind, &filter).await?,
                Some(at) => self.list_at(kind, &filter, at).await?,
            };
            picked.extend(page.streams.iter().filter_map(&pick));
            match page.next {
                Some(next) => filter.after = Some(next),
                None => return Ok(picked),
            }
        }
    }

    /// Live streams of one kind, page by page.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn list(&self, kind: StreamKind, filter: &ListFilter) -> Result<Listed, LedgerError> {
        let (name, id) = filter.after.as_ref().map_or(("", Uuid::nil()), |after| (after.name.as_str(), after.id));
        let labels = serde_json::to_string(&filter.selector)
            .map_err(|error| LedgerError::Corrupt(format!("the selector has no JSON form: {error}")))?;
        let limit = filter.limit.clamp(1, 1000);
        let rows = folded!(
            r#"WHERE kind = $1 AND live AND (name, stream_id) > ($2, $3)
                 AND ($4::text = '{}' OR state::jsonb #> '{spec,labels}' @> ($4::text)::jsonb)
             ORDER BY name, stream_id LIMIT $5"#,
            kind.as_str(),
            name,
            id,
            labels,
            i64::from(limit) + 1
        );
        let rows = in_time(rows.fetch_all(&mut *self.connection().await?)).await?;
        let mut streams = rows.into_iter().map(StreamRow::stored).collect::<Result<Vec<_>, _>>()?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = streams.len() > limit;
        streams.truncate(limit);
        let last = streams.last().filter(|_| more);
        let next = last.map(|last| Cursor {
            name: last.state.name().map(ToString::to_string).unwrap_or_default(),
            id: last.stream.id,
        });
        Ok(Listed { streams, next })
    }

    /// All locks in force at a moment, in the order of ids. For relying parties, which must know them all.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn locks_in_force(&self, now: Timestamp) -> Result<Vec<Stored>, LedgerError> {
        let rows = folded!(
            r#"WHERE lock_target IS NOT NULL AND live AND (expires_at IS NULL OR expires_at > $1) ORDER BY stream_id"#,
            now
        );
        in_time(rows.fetch_all(&mut *self.connection().await?)).await?.into_iter().map(StreamRow::stored).collect()
    }
}

-- The state of a stream has a row of its own, as it was at some version: what the entries say from there on is folded
-- when it is read. It is larger than all else that an append writes, and a node that remembers a token reads it once.
CREATE TABLE snapshot (
    stream_id uuid   PRIMARY KEY,
    version   bigint NOT NULL CHECK (version > 0),
    state     text   NOT NULL
)
WITH (fillfactor = 70, toast_tuple_target = 4096);
INSERT INTO snapshot SELECT stream_id, version, state FROM stream;

ALTER TABLE stream DROP COLUMN state;

-- Streams with all that their state follows from: the snapshot, and the envelopes since.
CREATE VIEW folded AS
SELECT s.stream_id, s.kind, s.version, s.fence, s.name, s.live, s.bot_id, s.instance_id, s.lock_target, s.expires_at,
    p.state, p.version AS snapshot_version,
    CASE WHEN p.version < s.version THEN ARRAY(
        SELECT e.envelope FROM entry e WHERE e.stream_id = s.stream_id AND e.first_version > p.version
        ORDER BY e.first_version) ELSE '{}' END AS since,
    pg_postmaster_start_time() AS server
FROM stream s JOIN snapshot p USING (stream_id);

GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON snapshot TO join_service;
GRANT SELECT ON snapshot TO join_reader;
GRANT SELECT ON folded TO join_service, join_reader;

-- What runs for every join may not get slower with the rows that joins before it left behind.

-- Notes are taken in the order of their transactions, so that a step begins where the notes are, and not at the rows of
-- all those that were taken since the last vacuum. Notes of before count as this transaction's.
ALTER TABLE outbox ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();
ALTER TABLE outbox DROP CONSTRAINT outbox_pkey, ADD PRIMARY KEY (xid, position);
-- What is cut off is needed again a moment later, and appends would wait for the cut.
ALTER TABLE outbox SET (vacuum_truncate = off);
-- Older transactions have ended, and left no note that is not numbered.
ALTER TABLE sequencer ADD COLUMN horizon xid8 NOT NULL DEFAULT '0';
-- The server whose transactions those are: one that a dump is restored on counts its own.
ALTER TABLE sequencer ADD COLUMN horizon_of bigint NOT NULL DEFAULT 0;

-- Which token a lineage is of, so that a lock on it finds the token. An index of `stream.instance_id` did this before; but a
-- row whose indexed column changes gets a new entry in each index of its table, and every recovery begins a lineage.
-- Lineages that have ended stay.
CREATE TABLE lineage (
    instance_id uuid NOT NULL,
    stream_id   uuid NOT NULL
);
INSERT INTO lineage SELECT instance_id, stream_id FROM stream WHERE instance_id IS NOT NULL;
CREATE INDEX lineage_by_instance ON lineage (instance_id);
DROP INDEX stream_by_instance;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON lineage TO join_service;
GRANT SELECT ON lineage TO join_reader;

-- A token's expired certificates are found without a look at those that are in force. By serial or instance nobody looks.
DROP INDEX certificate_view_of_token, certificate_view_of_instance;
ALTER TABLE certificate_view DROP CONSTRAINT certificate_view_pkey, ADD PRIMARY KEY (token_id, not_after, serial);

-- Ten authentications as objects made a row that is compressed whenever it is written. As arrays they are half as long:
-- moment, address, case, generation, serial, end; moments in microseconds since 1970. No string in them has a space.
UPDATE instance_view SET latest = (
    SELECT translate(coalesce(json_agg(json_build_array(
        (extract(epoch FROM (a ->> 'at')::timestamptz) * 1000000)::int8, a -> 'address', a -> 'case', a -> 'generation',
        a -> 'serial', (extract(epoch FROM (a ->> 'not_after')::timestamptz) * 1000000)::int8) ORDER BY ord), '[]')::text,
        E' \n', '')
    FROM json_array_elements(latest::json) WITH ORDINALITY AS latest (a, ord));

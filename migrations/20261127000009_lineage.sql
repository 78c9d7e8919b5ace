-- Which token a lineage is of, so that a lock on it finds the token. An index of `stream.instance_id` did this before; but a
-- row whose indexed column changes gets a new entry in each index of its table, and every recovery begins a lineage.
-- Lineages that have ended stay.
CREATE TABLE lineage (
    instance_id uuid NOT NULL,
    stream_id   uuid NOT NULL
);
INSERT INTO lineage SELECT instance_id, stream_id FROM stream WHERE instance_id IS NOT NULL;
CREATE INDEX lineage_by_instance ON lineage (instance_id);
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON lineage TO join_service;
GRANT SELECT ON lineage TO join_reader;

-- Last, and for a moment: appends wait for it.
DROP INDEX stream_by_instance;

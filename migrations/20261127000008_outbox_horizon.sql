-- What runs for every join may not get slower with the rows that joins before it left behind.

-- Older transactions have ended, and left no note that is not numbered. (The sequencer before the outbox: a step of it
-- locks them in this order, too.)
ALTER TABLE sequencer ADD COLUMN horizon xid8 NOT NULL DEFAULT '0';
-- The server whose transactions those are: one that a dump is restored on counts its own.
ALTER TABLE sequencer ADD COLUMN horizon_of bigint NOT NULL DEFAULT 0;

-- Notes are taken in the order of their transactions, so that a step begins where the notes are, and not at the rows of
-- all those that were taken since the last vacuum. Notes of before count as this transaction's.
ALTER TABLE outbox ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();
ALTER TABLE outbox DROP CONSTRAINT outbox_pkey, ADD PRIMARY KEY (xid, position);
-- What is cut off is needed again a moment later, and appends would wait for the cut.
ALTER TABLE outbox SET (vacuum_truncate = off);

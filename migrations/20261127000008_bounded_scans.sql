-- What runs for every join may not get slower with the rows that joins before it left behind.

-- Notes are taken in the order of their transactions, so that a step begins where the notes are, and not at the rows of
-- all those that were taken since the last vacuum. Notes of before count as this transaction's.
ALTER TABLE outbox ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();
ALTER TABLE outbox DROP CONSTRAINT outbox_pkey, ADD PRIMARY KEY (xid, position);
-- Older transactions have ended, and left no note that is not numbered.
ALTER TABLE sequencer ADD COLUMN horizon xid8 NOT NULL DEFAULT '0';

-- A token's expired certificates are found without a look at those that are in force.
DROP INDEX certificate_view_of_token;
CREATE INDEX certificate_view_of_token ON certificate_view (token_id, not_after);
-- Nobody looks for certificates by it.
DROP INDEX certificate_view_of_instance;

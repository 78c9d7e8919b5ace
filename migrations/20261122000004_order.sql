-- One order over all streams. Commits become visible in another order than any number that is drawn before them, so
-- the log index is given after the commit: an append leaves a note in the outbox, and whoever holds the sequencer's row
-- takes notes out and numbers them. A late commit shows its note late, and is numbered then; nothing is skipped.
CREATE TABLE outbox (
    position      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream_id     uuid   NOT NULL,
    first_version bigint NOT NULL
)
-- Rows live for a moment only.
WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_threshold = 100000);

CREATE TABLE log_entry (
    log_index     bigint PRIMARY KEY CHECK (log_index >= 0),
    stream_id     uuid   NOT NULL,
    first_version bigint NOT NULL,
    UNIQUE (stream_id, first_version)
);

-- One row, whose lock is the right to number.
CREATE TABLE sequencer (
    one_row    boolean     PRIMARY KEY DEFAULT true CHECK (one_row),
    next_index bigint      NOT NULL,
    holder     text        NOT NULL,
    heartbeat  timestamptz
);
INSERT INTO sequencer (next_index, holder) VALUES (0, '');

-- How far the verifiable log is: entries integrated into its tree, and the newest checkpoint that was signed. Signing
-- is recorded here before the checkpoint goes anywhere else.
CREATE TABLE log_head (
    one_row           boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    integrated_size   bigint  NOT NULL,
    signed_size       bigint  NOT NULL,
    signed_checkpoint text
);
INSERT INTO log_head (integrated_size, signed_size) VALUES (0, 0);

-- The order, like what it orders, is only ever added to.
GRANT SELECT, INSERT ON log_entry TO join_service;
GRANT SELECT, INSERT, DELETE ON outbox TO join_service;
GRANT SELECT, UPDATE ON sequencer, log_head TO join_service;
GRANT SELECT ON log_entry, sequencer, log_head TO join_reader;

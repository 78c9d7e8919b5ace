-- The truth: what happened, and nothing else.
--
-- One row is one append to one stream, with all its events in one RFC 8785 envelope. The envelope is text because its
-- bytes are the leaf of the verifiable log: jsonb would give other bytes back.
CREATE TABLE entry (
    stream_id     uuid        NOT NULL,
    first_version bigint      NOT NULL CHECK (first_version > 0),
    last_version  bigint      NOT NULL CHECK (last_version >= first_version),
    stream_kind   text        NOT NULL,
    recorded_at   timestamptz NOT NULL,
    envelope      text        NOT NULL,
    -- Hash of the attempt that an accepted join used up.
    attempt       text,
    PRIMARY KEY (stream_id, first_version)
);

-- An attempt is accepted once, however many nodes decide about it at the same time.
CREATE UNIQUE INDEX entry_attempt ON entry (stream_id, attempt) WHERE attempt IS NOT NULL;

-- History is added to and never changed: the service has no other privilege, so a fault in it can't rewrite the past.
GRANT SELECT, INSERT ON entry TO join_service;
GRANT SELECT ON entry TO join_reader;

-- The service compares the schema that it finds with the one that it knows.
GRANT SELECT ON _sqlx_migrations TO join_service, join_reader;

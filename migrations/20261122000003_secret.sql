-- What must be shown or used again but may never stand in an event: sealed by the service under its master key, and
-- deleted when it is used. Neither follows from the entries: a backup must hold both.
CREATE TABLE secret (
    stream_id uuid  NOT NULL,
    purpose   text  NOT NULL,
    sealed    bytea NOT NULL,
    PRIMARY KEY (stream_id, purpose)
);

-- The authority's own keys; the private halves sealed in the same way.
CREATE TABLE authority_key (
    kid         text        PRIMARY KEY,
    purpose     text        NOT NULL,
    phase       text        NOT NULL,
    public      bytea       NOT NULL,
    certificate bytea,
    sealed      bytea       NOT NULL,
    created_at  timestamptz NOT NULL,
    phase_since timestamptz NOT NULL
);

-- Readers get neither.
GRANT SELECT, INSERT, UPDATE, DELETE ON secret TO join_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON authority_key TO join_service;

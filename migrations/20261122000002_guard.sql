-- Guard rows: the fold of each stream, kept in the append that changes it, so that a join reads one row instead of a
-- history. Everything here but the fence follows from the entries and can be dropped and rebuilt.
CREATE TABLE stream (
    stream_id   uuid             PRIMARY KEY,
    kind        text             NOT NULL,
    version     bigint           NOT NULL CHECK (version > 0),
    -- Moves when something outside of the stream changes what may be decided about it: a lock, the bot of a token.
    fence       bigint           NOT NULL,
    name        text COLLATE "C" NOT NULL,
    live        boolean          NOT NULL,
    -- Of a token: its bot, and the instance that is bound.
    bot_id      uuid,
    instance_id uuid,
    -- Of a lock: what it stops, and until when.
    lock_target text COLLATE "C",
    expires_at  timestamptz,
    state       text             NOT NULL
)
-- Room for the next version of a row in its own page (HOT updates), and a state of usual size in the row itself,
-- uncompressed.
WITH (fillfactor = 70, toast_tuple_target = 4096);

CREATE INDEX stream_by_name ON stream (kind, name, stream_id);
CREATE INDEX stream_tokens_of_bot ON stream (bot_id) WHERE kind = 'token' AND live;
CREATE INDEX stream_by_instance ON stream (instance_id) WHERE instance_id IS NOT NULL;
CREATE INDEX stream_locks ON stream (lock_target) WHERE live;

-- What only one live stream may have: names of tokens and bots, and keys (one key, one token).
CREATE TABLE claim (
    namespace text             NOT NULL,
    value     text COLLATE "C" NOT NULL,
    stream_id uuid             NOT NULL,
    PRIMARY KEY (namespace, value)
);
CREATE INDEX claim_of_stream ON claim (stream_id);

GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON stream, claim TO join_service;
GRANT SELECT ON stream, claim TO join_reader;

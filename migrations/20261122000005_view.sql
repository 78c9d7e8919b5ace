-- Views follow the log in its order; the checkpoint moves in the transaction that moves the view. They can be dropped
-- and rebuilt from the entries at any time, and are equal then.
CREATE TABLE view_checkpoint (
    view       text   PRIMARY KEY,
    next_index bigint NOT NULL
);
INSERT INTO view_checkpoint (view, next_index) VALUES ('views', 0);

-- What the other views need to know of a token by its id.
CREATE TABLE token_view (
    token_id    uuid             PRIMARY KEY,
    name        text COLLATE "C" NOT NULL,
    bot_name    text COLLATE "C" NOT NULL,
    -- The lineage that joined last.
    instance_id uuid
);

-- Every lineage that ever joined, also after it expired.
CREATE TABLE instance_view (
    instance_id           uuid             PRIMARY KEY,
    token_id              uuid             NOT NULL,
    token_name            text COLLATE "C" NOT NULL,
    bot_name              text COLLATE "C" NOT NULL,
    previous_instance_id  uuid,
    generation            bigint           NOT NULL,
    joins                 bigint           NOT NULL,
    first_at              timestamptz      NOT NULL,
    latest_at             timestamptz      NOT NULL,
    certificate_not_after timestamptz      NOT NULL,
    -- The newest authentications, newest first, as a JSON array.
    latest                text             NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX instance_view_of_bot ON instance_view (bot_name, instance_id);
CREATE INDEX instance_view_of_token ON instance_view (token_id);

-- Certificates that may still be in use: those of a token that had expired when it joined again are gone.
CREATE TABLE certificate_view (
    serial      text COLLATE "C" PRIMARY KEY,
    token_id    uuid             NOT NULL,
    token_name  text COLLATE "C" NOT NULL,
    bot_name    text COLLATE "C" NOT NULL,
    instance_id uuid             NOT NULL,
    generation  bigint           NOT NULL,
    key         text COLLATE "C" NOT NULL,
    issued_at   timestamptz      NOT NULL,
    not_after   timestamptz      NOT NULL,
    -- When its binding ended, or was reinstated after a lock.
    revoked_at  timestamptz
);
CREATE INDEX certificate_view_of_token ON certificate_view (token_id);
CREATE INDEX certificate_view_of_instance ON certificate_view (instance_id);
CREATE INDEX certificate_view_revoked ON certificate_view (not_after) WHERE revoked_at IS NOT NULL;

-- How often each kind of event happened.
CREATE TABLE count_view (
    kind   text COLLATE "C" PRIMARY KEY,
    events bigint           NOT NULL
);

GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON token_view, instance_view, certificate_view, count_view TO join_service;
GRANT SELECT, UPDATE ON view_checkpoint TO join_service;
GRANT SELECT ON view_checkpoint, token_view, instance_view, certificate_view, count_view TO join_reader;

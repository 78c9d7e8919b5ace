-- Names under which this history, or a part of it, was signed once and may never be signed again: a log that lost its
-- tail goes on under another name, and so does every copy of it. Names are added and never taken away.
CREATE TABLE log_past (
    origin            text COLLATE "C" PRIMARY KEY,
    signed_size       bigint           NOT NULL CHECK (signed_size >= 0),
    signed_checkpoint text,
    ended_at          timestamptz      NOT NULL,
    reason            text             NOT NULL
);

GRANT SELECT, INSERT ON log_past TO join_service;
GRANT SELECT ON log_past TO join_reader;

-- The three roles of a join authority. Run it as an administrator, in the authority's own, empty database:
--
--   createdb join_authority
--   psql -d join_authority -f roles.sql
--   psql -d join_authority -c '\password join_owner' -c '\password join_service' -c '\password join_reader'
--   joind init -c joind.yaml --admin-identity DIR
--
-- Database and encoding are up to you, but the encoding has to be UTF8. Roles belong to the whole server: a second
-- authority on it needs a second server, or has to trust the first. The script can be repeated. What each role may do
-- with a table stands in the migration that makes the table.
--
--   join_owner    makes and changes tables: joind init, migrate, import
--   join_service  serves: may add to history and read it, never change or delete it
--   join_reader   reads: reports, backups of single tables, curious people

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['join_owner', 'join_service', 'join_reader'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', wanted);
        EXCEPTION
            -- It is there, or somebody else makes it at this moment.
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;

    -- Nobody else gets in.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO join_owner, join_service, join_reader', current_database());
    -- Comparing and rebuilding what follows from the events (joind rebuild, joinctl audit verify) takes temporary tables.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO join_owner, join_service', current_database());
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO join_owner;
GRANT USAGE ON SCHEMA public TO join_service, join_reader;

ALTER ROLE join_reader SET default_transaction_read_only = on;

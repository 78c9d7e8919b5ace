#!/bin/sh
# Gives the roles of roles.sql their passwords, when the container of PostgreSQL makes its database.
set -eu

psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" \
    -v owner="$OWNER_PASSWORD" -v service="$SERVICE_PASSWORD" <<'SQL'
ALTER ROLE join_owner PASSWORD :'owner';
ALTER ROLE join_service PASSWORD :'service';
SQL

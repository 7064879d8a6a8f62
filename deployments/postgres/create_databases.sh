#!/bin/sh
# Create the two databases and their roles, once, when the cluster is new: predictions, and what the Prefect server stores.
# Names and passwords are those of the addresses in the secrets. Neither role is a superuser.
set -eu

# In an address that create_secrets.sh writes, each part is made of letters, digits, _ and -.
part() { sed -nE "s#^postgresql(\+asyncpg)?://([A-Za-z0-9_]+):([A-Za-z0-9_-]+)@[^/]+/([A-Za-z0-9_]+)\$#\\$2#p" "$1"; }

create() {
    role=$(part "$1" 2) password=$(part "$1" 3) database=$(part "$1" 4)
    [ -n "$database" ] || { echo "$1 holds no address as create_secrets.sh writes it" >&2; exit 1; }
    # By its environment, and not as an argument, which everybody may read in the list of processes.
    PASSWORD=$password psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
        --set role="$role" --set database="$database" <<'SQL'
\getenv password PASSWORD
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE DATABASE :"database" OWNER :"role";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
SQL
    printf '%s' "$role"
}

runner=$(create "${PRESCORE_DATABASE_URL_FILE:?}")
create "${PREFECT_API_DATABASE_CONNECTION_URL_FILE:?}" > /dev/null
# Runs have to see when other transactions began: rows that they commit late would be missed.
psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres --set role="$runner" <<'SQL'
GRANT pg_read_all_stats TO :"role";
SQL

#!/bin/sh
# Write what compose.yaml and the units of systemd keep secret: one file each, with passwords made here.
# Usage: sh deployments/create_secrets.sh FOLDER [HOST:PORT], where PostgreSQL is; "database:5432" of compose.yaml when left out.
set -eu
folder=${1:?name the folder, for example deployments/secrets}
place=${2:-database:5432}
umask 077
mkdir -p "$folder"

password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# Containers do not run as you: the files can be read, the folder only be entered by its owner.
keep() {
    [ ! -e "$folder/$1" ] || { echo "$folder/$1 is there already: left as it is" >&2; return 0; }
    printf '%s\n' "$2" > "$folder/$1"
    chmod 0444 "$folder/$1"
}

keep postgres_password "$(password)"
keep prescore_database_url "postgresql://prescore_runner:$(password)@$place/predictions"
keep prefect_database_url "postgresql+asyncpg://prefect:$(password)@$place/prefect"
keep prefect_auth "operator:$(password)"

-- A database and a role for each service: none can read another's tables. Passwords are for this compose file only.
CREATE ROLE audit LOGIN PASSWORD 'audit';
CREATE ROLE catalog LOGIN PASSWORD 'catalog';
CREATE ROLE policy LOGIN PASSWORD 'policy';
CREATE ROLE provisioning LOGIN PASSWORD 'provisioning';
CREATE DATABASE audit OWNER audit;
CREATE DATABASE catalog OWNER catalog;
CREATE DATABASE policy OWNER policy;
CREATE DATABASE provisioning OWNER provisioning;
REVOKE CONNECT ON DATABASE audit, catalog, policy, provisioning FROM PUBLIC;
-- Makes the databases that projects ask for.
CREATE ROLE projects LOGIN CREATEDB CREATEROLE PASSWORD 'projects';

//! A database on a PostgreSQL server: owner role, application role, nobody else.
//!
//! What was made for whom stands in the database's comment, written right after it was created; names carry a digest
//! of the resource and the key, so that a database without a comment can only be our own, broken off before it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pavior_core::digest::sha256_hex;
use pavior_driver::{
    ApplyRequest, CallContext, DestroyRequest, Driver, DriverInfo, ExposeSecret, Failure, FailureCode, Found,
    Health, ListRequest, ListResponse, Listed, Lookup, Observation, ObserveRequest, Outcome, PlanRequest,
    PlanResponse, SecretString, Secrets, Sink, Success, TypeSchema, Undo, ValidateRequest, Violation, diff,
};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, Statement, Value as Sql,
};
use serde_json::{Value, json};

use super::address::Address;
use super::comment::Comment;
use super::{INPUTS, Inputs, Size, TYPE, scram};
use crate::Error;
use crate::inputs::slug;
use crate::ledger::{Ledger, LedgerEntry, Rollback};

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The driver.
pub(crate) struct PostgresDriver {
    ledger: Arc<Ledger>,
    address: Address,
}

/// Quotes an identifier.
fn name(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Quotes a text for statements that take no parameters.
fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn failed(error: &DbErr) -> Failure {
    tracing::error!(error = %error, "PostgreSQL refused a statement");
    match error {
        DbErr::Conn(_) | DbErr::ConnectionAcquire(_) => {
            Failure::new(FailureCode::Unavailable, "the PostgreSQL server cannot be reached")
        }
        _ => Failure::new(FailureCode::Internal, "the PostgreSQL server refused a statement"),
    }
}

async fn run(connection: &DatabaseConnection, sql: &str) -> Result<(), Failure> {
    connection.execute_unprepared(sql).await.map(|_| ()).map_err(|error| failed(&error))
}

async fn exists(connection: &DatabaseConnection, sql: &str, value: &str) -> Result<bool, Failure> {
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [Sql::from(value)]);
    connection.query_one_raw(statement).await.map(|row| row.is_some()).map_err(|error| failed(&error))
}

impl PostgresDriver {
    pub(crate) fn new(url: &SecretString, ledger: Arc<Ledger>) -> Result<Self, Error> {
        Ok(Self { ledger, address: Address::parse(url)? })
    }

    /// One connection, so that a session lock covers what is done on it.
    async fn connect(
        &self,
        database: Option<&str>,
        patience: Duration,
    ) -> Result<DatabaseConnection, Failure> {
        let url = match database {
            None => Some(self.address.url.expose_secret().to_owned()),
            Some(database) => self.address.admin(database),
        };
        let url =
            url.ok_or_else(|| Failure::new(FailureCode::Internal, "the PostgreSQL address is not valid"))?;
        let mut options = ConnectOptions::new(url);
        options.max_connections(1).min_connections(0).sqlx_logging(false);
        options.connect_timeout(patience).acquire_timeout(patience);
        let connection = Database::connect(options).await.map_err(|error| failed(&error))?;
        run(&connection, "SET lock_timeout = '30s'; SET statement_timeout = '60s'").await?;
        Ok(connection)
    }

    fn password(&self, entry: &LedgerEntry) -> SecretString {
        self.ledger.keyring().password("postgres", &[&entry.identity, &entry.created_by])
    }

    fn success(&self, entry: &LedgerEntry) -> Success {
        let database = &entry.identity;
        let user = format!("{database}_app");
        let password = self.password(entry);
        let outputs = json!({
            "engine": "postgres",
            "host": self.address.host,
            "port": self.address.port,
            "database": database,
            "username": user,
        });
        let url = self.address.client(&user, password.expose_secret(), database);
        let secrets = Secrets::new().with("url", url).with("password", password);
        Success { identity: database.clone(), outputs, secrets, state: json!({}) }
    }

    async fn try_apply(&self, context: &CallContext, request: ApplyRequest) -> Result<Success, Failure> {
        let _lock = self.ledger.lock(context).await?;
        let before = self.ledger.replay(context, &request.inputs)?;
        let inputs = INPUTS.read(&request.inputs)?;
        let prior = request
            .prior
            .as_ref()
            .map(|prior| prior.identity.clone())
            .filter(|identity| !identity.is_empty());
        let identity = before.map(|used| used.identity).or(prior).unwrap_or_else(|| {
            let id = context.resource.rsplit('/').next().unwrap_or_default();
            let label =
                slug(&format!("{}-{}", context.organization, inputs.name.as_deref().unwrap_or(id)), 36);
            let digest = sha256_hex(format!("{}\0{}", context.resource, context.idempotency_key).as_bytes());
            format!("p_{}_{}", label.replace('-', "_"), &digest[..12])
        });
        if self.ledger.owner(&identity)?.is_some_and(|owner| owner.organization != context.organization) {
            return Err(Failure::new(FailureCode::NotFound, format!("database `{identity}` does not exist")));
        }
        let connection = self.connect(None, PATIENCE).await?;
        // Another replica may have made it: passwords come from the key that it was made with.
        let known = self.locate(&connection, context, &Lookup::Identity(identity.clone())).await?;
        let known = known.filter(|known| known.reconstructed);
        let mut intent = self.ledger.intend_over(context, TYPE, &identity, &request, known)?;
        let made = self.make(&connection, &intent.entry, &inputs, &request.declaration_digest).await;
        // The session lock ends with the connection.
        let _ = connection.close().await;
        match made.and_then(|()| self.ledger.complete(&mut intent)) {
            Ok(()) => Ok(self.success(&intent.entry)),
            Err(failure) => Err(self.ledger.roll_back(intent, failure, self).await),
        }
    }

    async fn make(
        &self,
        connection: &DatabaseConnection,
        entry: &LedgerEntry,
        inputs: &Inputs,
        declaration_digest: &str,
    ) -> Result<(), Failure> {
        let database = &entry.identity;
        let (owner, app) = (format!("{database}_owner"), format!("{database}_app"));
        Self::lock(connection, database).await?;
        let present = self.is_there(connection, entry).await?;
        let role = "SELECT 1 FROM pg_roles WHERE rolname = $1";
        if !exists(connection, role, &owner).await? {
            run(connection, &format!("CREATE ROLE {} NOLOGIN", name(&owner))).await?;
        }
        if !exists(connection, role, &app).await? {
            run(connection, &format!("CREATE ROLE {} NOLOGIN", name(&app))).await?;
        }
        let mut salt = [0_u8; 16];
        salt.copy_from_slice(
            &self.ledger.keyring().digest("scram salt", database.as_bytes()).as_bytes()[..16],
        );
        let verifier = scram::verifier(self.password(entry).expose_secret(), &salt);
        run(connection, &format!("ALTER ROLE {} LOGIN PASSWORD {}", name(&app), text(&verifier))).await?;
        if !present {
            // An administrator that is no superuser must be a member of the role that it gives the database to.
            run(connection, &format!("GRANT {} TO CURRENT_USER", name(&owner))).await?;
            run(connection, &format!("CREATE DATABASE {} OWNER {}", name(database), name(&owner))).await?;
        }
        let comment = |digest: &str| {
            let comment = Comment { declaration_digest: digest.to_owned(), ..self.comment_of(entry) };
            let comment = serde_json::to_string(&comment).unwrap_or_default();
            format!("COMMENT ON DATABASE {} IS {}", name(database), text(&comment))
        };
        let limit = match inputs.size {
            Size::Small => 20,
            Size::Medium => 60,
            Size::Large => 200,
        };
        for statement in [
            // Until all is done it is nobody's word that it is as declared.
            comment(""),
            format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", name(database)),
            format!("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}", name(database), name(&app)),
            format!("ALTER DATABASE {} CONNECTION LIMIT {limit}", name(database)),
        ] {
            run(connection, &statement).await?;
        }
        let inside = self.connect(Some(database), PATIENCE).await?;
        let granted = run(&inside, &format!("GRANT USAGE, CREATE ON SCHEMA public TO {}", name(&app))).await;
        let _ = inside.close().await;
        granted?;
        run(connection, &comment(declaration_digest)).await
    }

    /// The comment as ours; another text reads as somebody else's.
    async fn comment(
        &self,
        connection: &DatabaseConnection,
        database: &str,
    ) -> Result<Option<Comment>, Failure> {
        let sql =
            "SELECT shobj_description(oid, 'pg_database') AS comment FROM pg_database WHERE datname = $1";
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [Sql::from(database)]);
        let row = connection.query_one_raw(statement).await.map_err(|error| failed(&error))?;
        let found: Option<String> = match row {
            Some(row) => row.try_get("", "comment").map_err(|error| failed(&error))?,
            None => None,
        };
        Ok(found.map(|text| Comment::read(&text)))
    }

    /// What a lookup means: by this replica's files, else by the comments on the server, which every replica sees.
    async fn locate(
        &self,
        connection: &DatabaseConnection,
        context: &CallContext,
        lookup: &Lookup,
    ) -> Result<Option<LedgerEntry>, Failure> {
        if let Some(found) = self.ledger.find(context, lookup)?
            && let Some(entry) = self.ledger.entry(context, &found.identity)?
            && !entry.reconstructed
        {
            return Ok(Some(entry));
        }
        let found = self.databases(connection).await?.into_iter().find(|(database, comment)| {
            let wanted = match lookup {
                Lookup::Identity(identity) => identity == database,
                Lookup::Key(key) => *key == comment.key,
            };
            // As by the files: what another resource has by now under the same name is not what is looked for.
            wanted && comment.organization == context.organization && comment.resource == context.resource
        });
        Ok(found.map(|(database, comment)| {
            let Comment { organization, resource, key, .. } = comment;
            LedgerEntry::reconstructed(&database, &organization, &resource, TYPE, &key)
        }))
    }

    /// Every database of this platform with what its comment says, in order of name.
    async fn databases(&self, connection: &DatabaseConnection) -> Result<Vec<(String, Comment)>, Failure> {
        let sql = "SELECT datname::text AS name, shobj_description(oid, 'pg_database') AS comment FROM pg_database \
                   WHERE datname LIKE 'p\\_%' AND shobj_description(oid, 'pg_database') IS NOT NULL \
                   ORDER BY datname::text COLLATE \"C\"";
        let statement = Statement::from_string(DbBackend::Postgres, sql);
        let mut found = Vec::new();
        for row in connection.query_all_raw(statement).await.map_err(|error| failed(&error))? {
            let database: String = row.try_get("", "name").map_err(|error| failed(&error))?;
            let text: String = row.try_get("", "comment").map_err(|error| failed(&error))?;
            let Ok(comment) = serde_json::from_str::<Comment>(&text) else { continue };
            if comment.platform.is_empty() || comment.platform == self.platform() {
                found.push((database, comment));
            }
        }
        Ok(found)
    }

    /// This platform among those that may share the server.
    fn platform(&self) -> String {
        self.ledger.keyring().digest("platform", b"")[..16].to_owned()
    }

    async fn try_destroy(&self, context: &CallContext, request: DestroyRequest) -> Result<Success, Failure> {
        let _lock = self.ledger.lock(context).await?;
        let connection = self.connect(None, PATIENCE).await?;
        let Some(entry) = self.locate(&connection, context, &request.lookup).await? else {
            return Ok(Success::default());
        };
        let remove = async {
            Self::lock(&connection, &entry.identity).await?;
            Self::drop_all(&connection, &entry.identity).await
        };
        let removed = remove.await;
        let _ = connection.close().await;
        removed?;
        self.ledger.forget(&entry)?;
        Ok(Success::default())
    }

    async fn drop_all(connection: &DatabaseConnection, database: &str) -> Result<(), Failure> {
        for statement in [
            // Ends its connections too, and needs no right to signal other sessions one by one.
            format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", name(database)),
            format!("DROP ROLE IF EXISTS {}", name(&format!("{database}_app"))),
            format!("DROP ROLE IF EXISTS {}", name(&format!("{database}_owner"))),
        ] {
            run(connection, &statement).await?;
        }
        Ok(())
    }

    /// Takes a database for the life of the connection, so that nobody else works on it.
    async fn lock(connection: &DatabaseConnection, database: &str) -> Result<(), Failure> {
        run(connection, &format!("SELECT pg_advisory_lock({})", lock_of(database))).await
    }

    /// What stands in the comment of a thing's database.
    fn comment_of(&self, entry: &LedgerEntry) -> Comment {
        Comment {
            pavior: 1,
            organization: entry.organization.clone(),
            resource: entry.resource.clone(),
            key: entry.created_by.clone(),
            platform: self.platform(),
            declaration_digest: String::new(),
        }
    }

    /// Whether a database is there; a conflict when it is somebody else's.
    async fn is_there(&self, connection: &DatabaseConnection, entry: &LedgerEntry) -> Result<bool, Failure> {
        let database = &entry.identity;
        let present = exists(connection, "SELECT 1 FROM pg_database WHERE datname = $1", database).await?;
        let found = if present { self.comment(connection, database).await? } else { None };
        if found.is_some_and(|found| !found.fits(&self.comment_of(entry))) {
            let message = format!("database `{database}` belongs to another resource");
            return Err(Failure::new(FailureCode::Conflict, message));
        }
        Ok(present)
    }

    async fn try_observe(
        &self,
        context: &CallContext,
        request: ObserveRequest,
    ) -> Result<Observation, Failure> {
        let connection = self.connect(None, PATIENCE).await?;
        let Some(mut entry) = self.locate(&connection, context, &request.lookup).await? else {
            return Ok(Observation::Absent);
        };
        // What a call that is gone has begun goes on in the server: until it ends, nothing can be said.
        let sql = format!("SELECT 1 WHERE pg_try_advisory_lock({}) AND $1 <> ''", lock_of(&entry.identity));
        if !exists(&connection, &sql, &entry.identity).await? {
            let _ = connection.close().await;
            let message = "somebody works on the database".to_owned();
            return Ok(Observation::Indeterminate { message });
        }
        let sql = "SELECT 1 FROM pg_database WHERE datname = $1";
        let database = exists(&connection, sql, &entry.identity).await;
        let app = format!("{}_app", entry.identity);
        let role = exists(&connection, "SELECT 1 FROM pg_roles WHERE rolname = $1", &app).await;
        let comment = self.comment(&connection, &entry.identity).await;
        let _ = connection.close().await;
        // Whichever replica declared it last, it stands in the comment, and only once all of it was done.
        entry.declaration_digest = comment?.map(|comment| comment.declaration_digest).unwrap_or_default();
        let ready = entry.ready || (entry.reconstructed && !entry.declaration_digest.is_empty());
        let partial = |message: &str| Observation::Partial {
            identity: Some(entry.identity.clone()),
            state: Value::Null,
            message: message.to_owned(),
        };
        let seen = match (database?, role?, ready) {
            (true, true, true) => Observation::Found(Found::from(self.success(&entry))),
            (false, false, false) => Observation::Absent,
            (false, _, true) => partial("the database is gone"),
            (true, false, _) => partial("the application's role is gone"),
            (_, _, false) => partial("an apply broke off"),
        };
        Ok(entry.seen(&request.lookup, seen))
    }
}

/// The lock that stands for a database.
fn lock_of(database: &str) -> i64 {
    i64::from_be_bytes(first_bytes(&sha256_hex(database.as_bytes())))
}

#[async_trait]
impl Rollback for PostgresDriver {
    async fn remove(&self, entry: &LedgerEntry) -> Result<(), Failure> {
        let connection = self.connect(None, PATIENCE).await?;
        let remove = async {
            Self::lock(&connection, &entry.identity).await?;
            match self.is_there(&connection, entry).await {
                Ok(_) => Self::drop_all(&connection, &entry.identity).await,
                // Another's stays; the roles bear its name, and are its own.
                Err(failure) if failure.code == FailureCode::Conflict => Ok(()),
                Err(failure) => Err(failure),
            }
        };
        let removed = remove.await;
        let _ = connection.close().await;
        removed
    }

    async fn restore(&self, _before: &LedgerEntry) -> Result<(), Failure> {
        Err(Failure::new(FailureCode::Internal, "the database may have been changed in part"))
    }
}

fn first_bytes(hex: &str) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hex.as_bytes()[..8]);
    bytes
}

#[async_trait]
impl Driver for PostgresDriver {
    fn info(&self) -> DriverInfo {
        let database = TypeSchema {
            id: TYPE.to_owned(),
            inputs: INPUTS.schema(),
            outputs: json!({"type": "object", "properties": {
                "engine": {"const": "postgres"}, "host": {"type": "string"}, "port": {"type": "integer"},
                "database": {"type": "string"}, "username": {"type": "string"}
            }}),
            secret_outputs: vec!["url".to_owned(), "password".to_owned()],
            immutable: vec!["/name".to_owned()],
            actions: Vec::new(),
            undo: Undo::Destroy,
            secret_inputs: Vec::new(),
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        DriverInfo { id: "postgres-database".to_owned(), version, types: vec![database] }
    }

    async fn validate(&self, request: ValidateRequest) -> Result<Value, Vec<Violation>> {
        INPUTS.validate(&request)
    }

    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
        let immutable = ["/name".to_owned()];
        Ok(diff(request.prior.as_ref().map(|prior| &prior.inputs), request.desired.as_ref(), &immutable))
    }

    async fn apply(&self, context: &CallContext, request: ApplyRequest, _sink: &dyn Sink) -> Outcome {
        self.try_apply(context, request).await.into()
    }

    async fn observe(&self, context: &CallContext, request: ObserveRequest) -> Observation {
        let seen = self.try_observe(context, request).await;
        seen.unwrap_or_else(|failure| Observation::Indeterminate { message: failure.message })
    }

    async fn destroy(&self, context: &CallContext, request: DestroyRequest, _sink: &dyn Sink) -> Outcome {
        self.try_destroy(context, request).await.into()
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Failure> {
        let after = self.ledger.paging().after(&request)?;
        let connection = self.connect(None, PATIENCE).await?;
        let found = self.databases(&connection).await;
        let _ = connection.close().await;
        let behind = found?.into_iter().filter(|(database, _)| *database > after);
        let listed =
            behind.map(|(identity, Comment { organization, resource, key, declaration_digest, .. })| {
                Listed {
                    identity,
                    resource_type: TYPE.to_owned(),
                    organization,
                    resource,
                    key,
                    declaration_digest,
                }
            });
        Ok(self.ledger.paging().page(&request, listed))
    }

    async fn reconcile(&self, _declared: &BTreeSet<String>) {
        self.ledger.sweep_old().await;
    }

    async fn health(&self) -> Health {
        match self.connect(None, Duration::from_secs(1)).await {
            Ok(connection) => {
                let _ = connection.close().await;
                self.ledger.health()
            }
            Err(failure) => Health::Down(failure.message),
        }
    }
}

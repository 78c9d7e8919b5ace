//! `joinauthority.v1.Resources`: parse, call one ceremony, render.

use std::{collections::HashMap, sync::Arc};

use join_credential::Role;
use join_domain::{
    Timestamp,
    envelope::{StreamId, StreamKind},
    id::{GrantId, InstanceId, LockId, Name, TokenId},
    refusal::{Code, Refusal},
    state::{State, TokenState},
};
use join_ledger::{ListFilter, Stored};
use join_proto::v1::{self, resources_server::Resources};
use tonic::{Request, Response, Status};

use super::bulk::Bulk;
use crate::{
    app::App,
    caller::Administrator,
    ceremony::{OrRefuse as _, internal, not_found},
    request::{instance, problem::reply, resource, values},
};

/// The service.
#[derive(Clone)]
pub struct Administration(pub Arc<App>);

type Answer<T> = Result<Response<T>, Status>;

fn name(text: &str) -> Result<Name, Refusal> {
    text.parse().map_err(|error| Refusal::invalid("name", error))
}

fn lock_id(text: &str) -> Result<LockId, Refusal> {
    text.parse().map_err(|_| Refusal::invalid("name", "the name of a lock is a UUID"))
}

/// The name in the path must be that of the resource.
fn same_name(path: &str, written: &str) -> Result<(), Refusal> {
    if path.is_empty() || path == written {
        return Ok(());
    }
    Err(Refusal::invalid("metadata.name", format!("`{written}` is not the `{path}` of the path")))
}

impl Administration {
    /// Answers an administrator, whom the door let in.
    async fn call<T, R>(
        &self,
        request: Request<T>,
        work: impl AsyncFnOnce(Administrator, T) -> Result<R, Refusal>,
    ) -> Answer<R> {
        let (_, extensions, message) = request.into_parts();
        let worked = async {
            let admin = self.0.admitted_administrator(&extensions).await?;
            work(admin, message).await
        };
        reply(worked.await)
    }

    fn now(&self) -> Timestamp {
        self.0.ceremonies.ledger.now()
    }

    async fn bot(&self, name: &Name) -> Result<v1::Bot, Refusal> {
        let (stored, bot) = self.0.ceremonies.bot(name).await?;
        Ok(resource::write_bot(&bot, stored.version))
    }

    async fn token(&self, name: &Name, admin: &Administrator) -> Result<v1::Token, Refusal> {
        let (_, token) = self.0.ceremonies.token(name).await?;
        let secret = self.secrets(&[&token], admin).await?.remove(&token.id);
        Ok(resource::write_token(&token, secret, self.now()))
    }

    /// The registration secrets that tokens wait for: the role `admin` sees them, others that there are some.
    async fn secrets(
        &self,
        tokens: &[&TokenState],
        admin: &Administrator,
    ) -> Result<HashMap<TokenId, String>, Refusal> {
        match admin.role {
            Role::Admin => self.0.ceremonies.pending_secrets(tokens).await,
            Role::Operator | Role::Auditor => Ok(HashMap::new()),
        }
    }

    async fn lock(&self, id: LockId) -> Result<v1::Lock, Refusal> {
        let (stored, lock) = self.0.ceremonies.lock(id).await?;
        Ok(resource::write_lock(&lock, stored.version))
    }

    /// One page of live streams of a kind, as they are or, with `at`, as they were.
    async fn page(&self, kind: StreamKind, list: &v1::ListRequest) -> Result<(Vec<Stored>, String), Refusal> {
        let limit = values::page_size(list.page_size, values::PAGE);
        let selector = values::read_selector(&list.selector)?;
        let after = values::read_cursor(&list.cursor)?;
        let ledger = &self.0.ceremonies.ledger;
        let listed = match &list.at {
            None => ledger.list(kind, &ListFilter { selector, after, limit }).await.or_refuse()?,
            Some(at) => {
                let at = values::from_wire_time("at", at)?;
                ledger.list_at(kind, &ListFilter { selector, after, limit }, at).await.or_refuse()?
            }
        };
        Ok((listed.streams, listed.next.map(|next| next.to_string()).unwrap_or_default()))
    }

    /// What a name stood for at a moment, folded from the ledger.
    async fn at(&self, kind: StreamKind, text: &str, at: Timestamp) -> Result<(u64, State), Refusal> {
        let ledger = &self.0.ceremonies.ledger;
        for stream in ledger.namesakes(kind, &name(text)?).await.or_refuse()?.into_iter().rev() {
            if let Some(stored) = ledger.state_at(stream, at).await.or_refuse()?
                && stored.state.is_live()
            {
                return Ok((stored.version, stored.state));
            }
        }
        let kind = kind.as_str();
        Err(Refusal::new(Code::NotFound, format!("there was no {kind} `{text}` at {}", at.to_rfc3339())))
    }

    /// Every token that matches a selector now; at least one.
    async fn selected(&self, selector: &str) -> Result<Vec<Name>, Refusal> {
        let labels = values::read_selector(selector)?;
        if labels.is_empty() {
            return Err(Refusal::invalid("selector", "it is empty: give key=value, so that not every token is meant"));
        }
        let name = |stored: &Stored| Some(stored.token()?.name.clone());
        let names = self.0.ceremonies.ledger.list_all(StreamKind::Token, labels, None, name).await.or_refuse()?;
        if names.is_empty() {
            return Err(Refusal::new(Code::NotFound, format!("no token has the labels `{selector}`")));
        }
        Ok(names)
    }

    /// Finds the token that an exemption is of.
    async fn exemption(&self, id: &str) -> Result<(TokenState, GrantId), Refusal> {
        let id: GrantId = id.parse().map_err(|_| Refusal::invalid("name", "the name of an exemption is a UUID"))?;
        let token = self.0.ceremonies.ledger.token_of_grant(id).await.or_refuse()?;
        token.map(|token| (token, id)).ok_or_else(|| not_found("exemption", id))
    }
}

#[tonic::async_trait]
impl Resources for Administration {
    async fn get_bot(&self, request: Request<v1::GetRequest>) -> Answer<v1::Bot> {
        self.call(request, async |_, get| match values::optional_time("at", get.at.as_ref())? {
            None => self.bot(&name(&get.name)?).await,
            Some(at) => match self.at(StreamKind::Bot, &get.name, at).await? {
                (version, State::Bot(bot)) => Ok(resource::write_bot(&bot, version)),
                _ => Err(internal("a bot's stream holds no bot")),
            },
        })
        .await
    }

    async fn list_bots(&self, request: Request<v1::ListRequest>) -> Answer<v1::BotList> {
        self.call(request, async |_, list| {
            let (streams, next_cursor) = self.page(StreamKind::Bot, &list).await?;
            let bots = streams.iter().filter_map(|stored| Some(resource::write_bot(stored.bot()?, stored.version)));
            Ok(v1::BotList { bots: bots.collect(), next_cursor })
        })
        .await
    }

    async fn create_bot(&self, request: Request<v1::Bot>) -> Answer<v1::Bot> {
        self.call(request, async |admin, bot| {
            let (head, spec) = resource::read_bot(bot)?;
            let name = self.0.ceremonies.create_bot(&admin, head.name()?, spec).await?;
            self.bot(&name).await
        })
        .await
    }

    async fn upsert_bot(&self, request: Request<v1::UpsertBotRequest>) -> Answer<v1::Bot> {
        self.call(request, async |admin, upsert| {
            let (head, spec) = resource::read_bot(upsert.bot.unwrap_or_default())?;
            same_name(&upsert.name, &head.name)?;
            let name = self.0.ceremonies.upsert_bot(&admin, head.name()?, spec, &head.revision).await?;
            self.bot(&name).await
        })
        .await
    }

    async fn delete_bot(&self, request: Request<v1::DeleteRequest>) -> Answer<v1::Empty> {
        self.call(request, async |admin, delete| {
            self.0.ceremonies.delete_bot(&admin, &name(&delete.name)?, &delete.revision).await?;
            Ok(v1::Empty {})
        })
        .await
    }

    async fn get_token(&self, request: Request<v1::GetRequest>) -> Answer<v1::Token> {
        self.call(request, async |admin, get| {
            match values::optional_time("at", get.at.as_ref())? {
                None => self.token(&name(&get.name)?, &admin).await,
                Some(at) => match self.at(StreamKind::Token, &get.name, at).await? {
                    // A secret of the past is nobody's to see.
                    (_, State::Token(token)) => Ok(resource::write_token(&token, None, at)),
                    _ => Err(internal("a token's stream holds no token")),
                },
            }
        })
        .await
    }

    async fn list_tokens(&self, request: Request<v1::ListRequest>) -> Answer<v1::TokenList> {
        self.call(request, async |admin, list| {
            let (streams, next_cursor) = self.page(StreamKind::Token, &list).await?;
            let at = values::optional_time("at", list.at.as_ref())?;
            let tokens: Vec<&TokenState> = streams.iter().filter_map(Stored::token).collect();
            let mut secrets = match at {
                // A secret of the past is nobody's to see, and that of today is none of the past.
                Some(_) => HashMap::new(),
                None => self.secrets(&tokens, &admin).await?,
            };
            let at = at.unwrap_or_else(|| self.now());
            let written = tokens.iter().map(|token| resource::write_token(token, secrets.remove(&token.id), at));
            Ok(v1::TokenList { tokens: written.collect(), next_cursor })
        })
        .await
    }

    async fn create_token(&self, request: Request<v1::Token>) -> Answer<v1::Token> {
        self.call(request, async |admin, token| {
            let (head, spec, secret) = resource::read_token(token)?;
            let name = self.0.ceremonies.create_token(&admin, head.name()?, spec, secret).await?;
            self.token(&name, &admin).await
        })
        .await
    }

    async fn upsert_token(&self, request: Request<v1::UpsertTokenRequest>) -> Answer<v1::Token> {
        self.call(request, async |admin, upsert| {
            let (head, spec, secret) = resource::read_token(upsert.token.unwrap_or_default())?;
            same_name(&upsert.name, &head.name)?;
            let name = self.0.ceremonies.upsert_token(&admin, head.name()?, spec, secret, &head.revision).await?;
            self.token(&name, &admin).await
        })
        .await
    }

    async fn delete_token(&self, request: Request<v1::DeleteRequest>) -> Answer<v1::Empty> {
        self.call(request, async |admin, delete| {
            self.0.ceremonies.delete_token(&admin, &name(&delete.name)?, &delete.revision).await?;
            Ok(v1::Empty {})
        })
        .await
    }

    async fn rotate_token(&self, request: Request<v1::NameRequest>) -> Answer<v1::Token> {
        self.call(request, async |admin, named| {
            let name = name(&named.name)?;
            self.0.ceremonies.rotate(&admin, &name).await?;
            self.token(&name, &admin).await
        })
        .await
    }

    async fn reinstate(&self, request: Request<v1::ReasonRequest>) -> Answer<v1::TokenList> {
        self.call(request, async |admin, asked| {
            let name = name(&asked.name)?;
            self.0.ceremonies.reinstate(&admin, &name, &asked.reason).await?;
            Ok(v1::TokenList { tokens: vec![self.token(&name, &admin).await?], next_cursor: String::new() })
        })
        .await
    }

    /// All that are selected, also when the administrator goes away meanwhile: nobody would know where it stopped.
    async fn reinstate_selected(&self, request: Request<v1::SelectedReasonRequest>) -> Answer<v1::TokenList> {
        let (service, extensions) = (self.clone(), request.extensions().clone());
        let reinstated = async move {
            let admin = service.0.admitted_administrator(request.extensions()).await?;
            let asked = request.get_ref();
            let mut bulk = Bulk::new(&service.0, "reinstated", true);
            let mut tokens = Vec::new();
            for name in service.selected(&asked.selector).await? {
                let reinstated = service.0.ceremonies.reinstate(&admin, &name, &asked.reason);
                if bulk.change(&name, reinstated).await?.is_some() {
                    tokens.extend(bulk.show(&name, service.token(&name, &admin)).await?);
                }
            }
            Ok(v1::TokenList { tokens, next_cursor: String::new() })
        };
        reply(self.0.done(&extensions, reinstated).await)
    }

    async fn reopen(&self, request: Request<v1::ReasonRequest>) -> Answer<v1::Token> {
        self.call(request, async |admin, asked| {
            let name = name(&asked.name)?;
            self.0.ceremonies.reopen(&admin, &name, &asked.reason).await?;
            self.token(&name, &admin).await
        })
        .await
    }

    async fn get_bot_instance(&self, request: Request<v1::GetRequest>) -> Answer<v1::BotInstance> {
        self.call(request, async |_, get| {
            let at = values::optional_time("at", get.at.as_ref())?;
            let id: InstanceId =
                get.name.parse().map_err(|_| Refusal::invalid("name", "the name of an instance is a UUID"))?;
            instance::get(&self.0.ceremonies.ledger, id, at).await
        })
        .await
    }

    async fn list_bot_instances(&self, request: Request<v1::ListBotInstancesRequest>) -> Answer<v1::BotInstanceList> {
        self.call(request, async |_, list| instance::list(&self.0.ceremonies.ledger, &list).await).await
    }

    async fn get_lock(&self, request: Request<v1::GetRequest>) -> Answer<v1::Lock> {
        self.call(request, async |_, get| {
            let id = lock_id(&get.name)?;
            let Some(at) = &get.at else { return self.lock(id).await };
            let at = values::from_wire_time("at", at)?;
            let stored = self.0.ceremonies.ledger.state_at(StreamId::from(id), at).await.or_refuse()?;
            let lock =
                stored.as_ref().and_then(|stored| Some((stored.lock().filter(|lock| lock.live)?, stored.version)));
            let (lock, version) = lock.ok_or_else(|| {
                Refusal::new(Code::NotFound, format!("there was no lock `{id}` at {}", at.to_rfc3339()))
            })?;
            Ok(resource::write_lock(lock, version))
        })
        .await
    }

    async fn list_locks(&self, request: Request<v1::ListRequest>) -> Answer<v1::LockList> {
        self.call(request, async |_, list| {
            let (streams, next_cursor) = self.page(StreamKind::Lock, &list).await?;
            let locks = streams.iter().filter_map(|stored| Some(resource::write_lock(stored.lock()?, stored.version)));
            Ok(v1::LockList { locks: locks.collect(), next_cursor })
        })
        .await
    }

    async fn create_lock(&self, request: Request<v1::Lock>) -> Answer<v1::Lock> {
        self.call(request, async |admin, lock| {
            let written = resource::read_lock(lock)?;
            let id = self.0.ceremonies.create_lock(&admin, &written).await?;
            self.lock(id).await
        })
        .await
    }

    async fn upsert_lock(&self, request: Request<v1::UpsertLockRequest>) -> Answer<v1::Lock> {
        self.call(request, async |admin, upsert| {
            let lock = upsert.lock.unwrap_or_default();
            same_name(&upsert.name, lock.metadata.as_ref().map_or("", |metadata| &metadata.name))?;
            let id = self.0.ceremonies.upsert_lock(&admin, &resource::read_lock(lock)?).await?;
            self.lock(id).await
        })
        .await
    }

    async fn delete_lock(&self, request: Request<v1::DeleteRequest>) -> Answer<v1::Empty> {
        self.call(request, async |admin, delete| {
            self.0.ceremonies.delete_lock(&admin, lock_id(&delete.name)?, &delete.revision).await?;
            Ok(v1::Empty {})
        })
        .await
    }

    async fn get_exemption(&self, request: Request<v1::GetRequest>) -> Answer<v1::Exemption> {
        self.call(request, async |_, get| {
            let (mut token, id) = self.exemption(&get.name).await?;
            let at = values::optional_time("at", get.at.as_ref())?;
            if let Some(at) = at {
                let stored = self.0.ceremonies.ledger.state_at(StreamId::from(token.id), at).await.or_refuse()?;
                token = stored
                    .as_ref()
                    .and_then(Stored::token)
                    .cloned()
                    .unwrap_or(TokenState { grants: Vec::new(), ..token });
            }
            let grant = token.grants.iter().find(|grant| grant.id == id);
            let grant = grant.ok_or_else(|| not_found("exemption", id))?;
            Ok(resource::write_exemption(&token, grant, at.unwrap_or_else(|| self.now())))
        })
        .await
    }

    async fn list_exemptions(&self, request: Request<v1::ListRequest>) -> Answer<v1::ExemptionList> {
        self.call(request, async |_, list| {
            let at = list.at.as_ref();
            let now = at.map_or(Ok(self.now()), |at| values::from_wire_time("at", at))?;
            let (streams, next_cursor) = self.page(StreamKind::Token, &list).await?;
            let tokens = streams.iter().filter_map(Stored::token);
            let exemptions = tokens
                .flat_map(|token| token.grants.iter().map(move |grant| resource::write_exemption(token, grant, now)));
            Ok(v1::ExemptionList { exemptions: exemptions.collect(), next_cursor })
        })
        .await
    }

    async fn grant_exemption(&self, request: Request<v1::GrantExemptionRequest>) -> Answer<v1::ExemptionList> {
        let (service, extensions) = (self.clone(), request.extensions().clone());
        let granted = async move {
            let admin = service.0.admitted_administrator(request.extensions()).await?;
            let asked = request.into_inner();
            let (token, grant) = resource::read_exemption(asked.exemption.clone().unwrap_or_default())?;
            let names = match (token.as_str(), asked.selector.as_str()) {
                (token, "") => {
                    vec![token.parse().map_err(|error| Refusal::invalid("exemption.spec.token_name", error))?]
                }
                ("", selector) => service.selected(selector).await?,
                _ => return Err(Refusal::invalid("selector", "give spec.token_name or a selector, not both")),
            };
            let mut bulk = Bulk::new(&service.0, "granted", !asked.selector.is_empty());
            let mut exemptions = Vec::new();
            for name in names {
                let Some(id) = bulk.change(&name, service.0.ceremonies.grant(&admin, &name, &grant)).await? else {
                    continue;
                };
                if let Some((_, token)) = bulk.show(&name, service.0.ceremonies.token(&name)).await? {
                    let granted = token.grants.iter().find(|grant| grant.id == id);
                    exemptions.extend(granted.map(|grant| resource::write_exemption(&token, grant, service.now())));
                }
            }
            Ok(v1::ExemptionList { exemptions, next_cursor: String::new() })
        };
        reply(self.0.done(&extensions, granted).await)
    }

    async fn revoke_exemption(&self, request: Request<v1::DeleteRequest>) -> Answer<v1::Empty> {
        self.call(request, async |admin, delete| {
            let (token, id) = self.exemption(&delete.name).await?;
            self.0.ceremonies.revoke(&admin, &token.name, id, &delete.revision).await?;
            Ok(v1::Empty {})
        })
        .await
    }
}

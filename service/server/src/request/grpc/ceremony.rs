//! `joinauthority.v1.Ceremony`: joining without a stream. The state between two calls travels sealed.

use std::sync::Arc;

use join_domain::{
    decision::join::Life,
    proof::SubjectKeys,
    refusal::{Code, Refusal},
};
use join_proto::{
    ALGORITHM_SUITE,
    v1::{CeremonyStep, ContinueRequest, JoinResult, OpenRequest, RotationRequest, ceremony_server::Ceremony},
};
use tonic::{Request, Response, Status};

use crate::{
    app::App,
    ceremony::{
        internal,
        join::{Ask, Joined, Step},
        pending::{Pending, Stage},
    },
    request::{problem::reply, values},
};

/// What a continuation is sealed for.
const CONTINUATION: &str = "join-continuation";

/// The service.
#[derive(Clone)]
pub struct JoinCalls(pub Arc<App>);

#[tonic::async_trait]
impl Ceremony for JoinCalls {
    async fn open(&self, request: Request<OpenRequest>) -> Result<Response<CeremonyStep>, Status> {
        let (service, extensions) = (self.clone(), request.extensions().clone());
        let opened = async move {
            let peer = service.0.peer(request.extensions()).await?;
            let open = request.into_inner();
            if open.attempt_id.is_empty() {
                return Err(Refusal::invalid("attempt_id", "it is required here: 128 random bits in hex"));
            }
            let ask = Ask {
                token: open.token,
                attempt: open.attempt_id,
                secret: open.registration_secret,
                join_state: open.join_state.into_bytes(),
                subject: SubjectKeys { tls: open.public_tls_key, ssh: open.public_ssh_key },
                held_keys: open.held_keys.into_iter().map(String::into_bytes).collect(),
                life: values::read_life(&open.ttl)?.map(Life::For),
                is_portable: true,
            };
            service.tell(service.0.ceremonies.open(ask, &peer).await?)
        };
        reply(self.0.done(&extensions, opened).await)
    }

    async fn r#continue(&self, request: Request<ContinueRequest>) -> Result<Response<CeremonyStep>, Status> {
        let (service, extensions) = (self.clone(), request.extensions().clone());
        let continued = async move {
            let ceremonies = &service.0.ceremonies;
            let peer = service.0.peer(request.extensions()).await?;
            let answer = request.into_inner();
            let pending = service.unseal(&answer.continuation)?;
            let step = match (answer.solution.as_str(), answer.public_key.as_str()) {
                // Who is asked for a new key, and has none, says so with an empty one.
                ("", "") if !matches!(pending.stage, Stage::RotationKey(_)) => {
                    let refusal = Refusal::invalid("solution", "give a solution or a public_key");
                    return Err(ceremonies.failed(&pending, refusal, &peer).await);
                }
                ("", key) => ceremonies.take_key(pending, key.as_bytes(), &peer).await?,
                (solution, "") => ceremonies.take_solution(pending, solution.as_bytes(), &peer).await?,
                _ => {
                    let refusal = Refusal::invalid("public_key", "give a solution or a public_key, not both");
                    return Err(ceremonies.failed(&pending, refusal, &peer).await);
                }
            };
            service.tell(step)
        };
        reply(self.0.done(&extensions, continued).await)
    }
}

impl JoinCalls {
    fn unseal(&self, continuation: &str) -> Result<Box<Pending>, Refusal> {
        let opened: Result<Box<Pending>, _> =
            self.0.ceremonies.keyring.get().keys.sealer().open_token(CONTINUATION, continuation);
        opened.map_err(|_| {
            Refusal::new(
                Code::ChallengeFailed,
                "the continuation is not one of this cluster's: start the attempt again",
            )
        })
    }

    fn tell(&self, step: Step) -> Result<CeremonyStep, Refusal> {
        let keyring = self.0.ceremonies.keyring.get();
        Ok(match step {
            Step::Asked(pending) => {
                let question = match &pending.stage {
                    Stage::RegistrationKey | Stage::RotationKey(_) => CeremonyStep {
                        rotation_request: Some(RotationRequest {
                            signature_algorithm_suite: ALGORITHM_SUITE.to_owned(),
                        }),
                        ..CeremonyStep::default()
                    },
                    Stage::Challenge(issued) | Stage::RotationChallenge(_, issued) => CeremonyStep {
                        challenge: issued.document.clone(),
                        public_key: issued.key.to_authorized_key(),
                        ..CeremonyStep::default()
                    },
                };
                CeremonyStep { continuation: keyring.keys.sealer().seal_token(CONTINUATION, &pending), ..question }
            }
            Step::Joined(joined) => CeremonyStep { result: Some(Self::result(*joined)?), ..CeremonyStep::default() },
        })
    }

    fn result(joined: Joined) -> Result<JoinResult, Refusal> {
        let issuer = &joined.keyring.issuer;
        let certificate = ssh_key::Certificate::from_bytes(&joined.ssh_certificate).map_err(internal)?;
        Ok(JoinResult {
            tls_cert: join_credential::pem("CERTIFICATE", &joined.tls_certificate),
            tls_ca_certs: issuer.tls_ca_pems().to_vec(),
            ssh_cert: certificate.to_openssh().map_err(internal)?,
            ssh_ca_keys: issuer.ssh_ca_lines().to_vec(),
            join_state: joined.join_state,
            public_key: joined.bound_key.to_authorized_key(),
        })
    }
}

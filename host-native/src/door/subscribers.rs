//! The subscribers' door: `/` and `/stream/{stream}/{group}[/{item}]`, past the auth function. Source: subscriber socket,
//! section 1.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use tokio::net::TcpListener;

use super::{HttpResponse, Permit, Room, accept, not_found};
use crate::auth::{Auth, AuthRequest};
use crate::socket;
use crate::subscriber::{self, Admission, Subscribers};

/// What connections to the subscriber port need.
#[derive(Clone)]
pub struct SubscriberDoor {
    /// Who is connected.
    pub subscribers: Arc<Subscribers>,
    /// Who may come in.
    pub auth: Arc<Auth>,
}

/// Serves the port until dropped.
pub async fn accept_subscribers(listener: TcpListener, door: SubscriberDoor) {
    let SubscriberDoor { subscribers, auth } = door;
    let limits = subscribers.limits;
    let room = Room::new(limits.connections_max, limits.connections_per_address_max);
    accept(listener, room, |stream, addr, permit| {
        let subscribers = subscribers.clone();
        let auth = auth.clone();
        async move {
            socket::serve_http(stream, limits.handshake_time_max, |request| {
                answer_subscriber(
                    request,
                    addr,
                    subscribers.clone(),
                    auth.clone(),
                    permit.clone(),
                )
            })
            .await;
        }
    })
    .await;
}

async fn answer_subscriber(
    mut request: Request<Incoming>,
    addr: SocketAddr,
    subscribers: Arc<Subscribers>,
    auth: Arc<Auth>,
    permit: Permit,
) -> HttpResponse {
    let Some(path) = Subscribers::read_path(request.uri().path()) else {
        let message = "subscribers connect to / or to /stream/{stream}/{group}[/{item}]";
        return socket::refuse(&not_found(message));
    };
    // Asked before the auth function is: what cannot be upgraded need not be admitted.
    let (response, websocket) = match socket::upgrade(&mut request, subscribers.limits.connection) {
        Ok(upgraded) => upgraded,
        Err(refused) => return socket::refuse(&refused),
    };
    let asked = AuthRequest {
        headers: request.headers(),
        uri: request.uri(),
        addr: addr.ip(),
    };
    match auth.admit(asked).await {
        Ok(grant) => {
            let admission = Admission {
                path,
                context: grant.context,
                expires_at: grant.expires_at,
            };
            tokio::spawn(async move {
                subscriber::serve(websocket, subscribers, admission).await;
                drop(permit);
            });
            response
        }
        Err(refused) => socket::refuse(&refused),
    }
}

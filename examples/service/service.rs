//! The service: what listens, what works in the background, and how all of it ends.

use std::net::Ipv4Addr;

use context_merge::StreamExt as _;
use context_merge::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::database::Accounts;
use crate::endpoints::{App, routes};
use crate::replicas::Replicas;
use crate::{BoxError, GRACE, SLACK, queue, rpc};

pub(crate) async fn run() -> Result<(), BoxError> {
    let shutdown = Shutdown::new(GRACE).on_signals()?;
    let _told = shutdown.draining().on_done(|err| println!("DRAINING: {err}"));
    let accounts = Accounts::open("service").await?;

    let (jobs, queue) = mpsc::unbounded_channel();
    let worker = shutdown.spawn(queue::work(shutdown.clone(), queue));

    let app = App { replicas: Replicas::default(), jobs, accounts: accounts.clone() };
    let replicas = app.replicas.clone();
    let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("LISTENING http {}", http.local_addr()?);
    let router = routes().with_state(app).layer(shutdown.layer().enforce());
    let server = axum::serve(http, router).with_graceful_shutdown(shutdown.draining().finished());
    shutdown.spawn(server.into_future());

    let grpc = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("LISTENING grpc {}", grpc.local_addr()?);
    // Until 0.14.5 tonic holds on to its listener while it drains: whoever connects then waits for the end of the process,
    // instead of being refused and going elsewhere. So the listener ends with draining too.
    let incoming = TcpIncoming::from(grpc).with_nodelay(Some(true)).take_until_done(shutdown.draining());
    let server = Server::builder().layer(shutdown.layer().enforce()).serve_with_incoming_shutdown(
        rpc::router(),
        incoming,
        shutdown.draining().finished(),
    );
    shutdown.spawn(server);

    // A reader that stalls keeps its connection open to the end: that is told, and not waited for.
    match shutdown.ended(SLACK).await {
        Ok(()) => println!("ENDED all of it"),
        Err(left) => println!("ENDED {left}"),
    }
    println!("REPLICAS {}", replicas.tally());
    println!("QUEUE {}", worker.await?);
    if let Some(accounts) = accounts {
        let (paid, sum) = accounts.close().await?;
        println!("DATABASE paid={paid} sum={sum}");
    }
    Ok(())
}

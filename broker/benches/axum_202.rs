//! The ceiling of ingress: axum reads an event and answers 202, nothing is kept.

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use clap::Parser;
use http::StatusCode;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind(Args::parse().listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let router = Router::new().route("/events", post(|_body: Bytes| async { StatusCode::ACCEPTED }));
    // A socket that refuses the option still works.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, router).await?;
    Ok(())
}

//! ${{ parameters.name }}: answers HTTP with the standard library alone.

mod counter;
mod page;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_string())
}

/// The status line's rest and the body for a path.
fn answer(path: &str) -> (&'static str, String) {
    match path {
        "/" => {
            let name = variable("APP_NAME", "${{ parameters.name }}");
            let version = variable("APP_VERSION", "local");
            let environment = variable("APP_ENVIRONMENT", "local");
            ("200 OK", page::render(&name, &version, &environment, counter::count()))
        }
        "/healthz" => ("200 OK", "ok\n".to_string()),
        _ => ("404 Not Found", "not found\n".to_string()),
    }
}

fn serve(stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
    }
    let path = request.split_whitespace().nth(1).unwrap_or("/");
    let (status, body) = answer(path);
    let length = body.len();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn main() -> std::io::Result<()> {
    let port = variable("PORT", "8080");
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = serve(stream) {
                eprintln!("connection: {error}");
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_path_is_not_found() {
        assert_eq!(answer("/nothing").0, "404 Not Found");
    }

    #[test]
    fn it_is_well() {
        assert_eq!(answer("/healthz"), ("200 OK", "ok\n".to_string()));
    }
}

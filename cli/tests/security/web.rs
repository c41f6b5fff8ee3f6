//! A small HTTP server on loopback: what an authorization server or a hook would be.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use super::support::PATIENCE;

/// What is done with a request.
#[derive(Clone)]
pub enum Answer {
    /// 200 with this JSON.
    Json(String),
    /// 200 with the JSON that is made for this request.
    Made(Arc<dyn Fn() -> String + Send + Sync>),
    /// A status without a body.
    Status(u16),
    /// The connection is closed without a word.
    Down,
    /// Nothing is answered as long as the server lives.
    Silence,
}

/// A request that came.
#[derive(Clone)]
pub struct Request {
    pub path: String,
    /// With names in small letters.
    pub headers: HashMap<String, String>,
    pub body: String,
}

#[derive(Default)]
struct State {
    pages: HashMap<String, Answer>,
    requests: Vec<Request>,
    /// Kept open.
    silent: Vec<TcpStream>,
}

/// The server. Its thread ends with the process.
pub struct Web {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Web {
    pub fn start() -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Web { address, state }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn put(&self, path: &str, answer: Answer) {
        self.lock().pages.insert(path.into(), answer);
    }

    /// What came for this path.
    pub fn requests(&self, path: &str) -> Vec<Request> {
        self.lock().requests.iter().filter(|one| one.path == path).cloned().collect()
    }

    pub fn count(&self, path: &str) -> usize {
        self.requests(path).len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// One request for each connection.
fn serve(stream: TcpStream, state: &Mutex<State>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream);
    let Some(request) = read(&mut reader) else { return };
    let mut stream = reader.into_inner();
    let answer = {
        let mut state = state.lock().unwrap();
        let answer = state.pages.get(&request.path).cloned().unwrap_or(Answer::Status(404));
        state.requests.push(request);
        if matches!(answer, Answer::Silence) {
            state.silent.push(stream.try_clone().unwrap());
        }
        answer
    };
    let (status, body) = match answer {
        Answer::Json(body) => (200, body),
        Answer::Made(make) => (200, make()),
        Answer::Status(status) => (status, String::new()),
        Answer::Down | Answer::Silence => return,
    };
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    // Whoever asks may have given up.
    let _ = stream.write_all((head + &body).as_bytes());
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let len = headers.get("content-length").map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body: String::from_utf8(body).unwrap() })
}

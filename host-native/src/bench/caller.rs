//! Calls one after the other, each answer read: fills groups, verifies them, and measures what one call takes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use serde_json::value::RawValue;

use super::frame::{self, PING, PONG, TEXT};
use super::target::Target;
use super::wire::unexpected;
use super::worker_wire::upgrade;

/// A worker connection with blocking reads and writes.
pub struct Caller {
    stream: TcpStream,
    input: Vec<u8>,
    read: usize,
    calls: u64,
    output: Vec<u8>,
}

#[derive(serde::Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    invocation_id: Option<&'a str>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

impl Caller {
    /// A connection to the worker port that the options name.
    pub fn open(target: &Target) -> io::Result<Self> {
        Self::at(target.workers()?, target.token().as_deref())
    }

    /// A connection to this worker port.
    pub fn at(address: SocketAddr, token: Option<&str>) -> io::Result<Self> {
        Ok(Self {
            stream: upgrade(address, token)?,
            input: Vec::new(),
            read: 0,
            calls: 0,
            output: Vec::new(),
        })
    }

    /// Makes one call with this JSON; answers its result, null when there is none.
    pub fn call(&mut self, function: &str, data: &str) -> io::Result<Value> {
        self.send(function, data)?;
        self.answer(|result| match result {
            Some(result) => serde_json::from_str(result).map_err(io::Error::other),
            None => Ok(Value::Null),
        })
    }

    /// Makes one call and looks at nothing but whether it succeeded.
    pub fn run(&mut self, function: &str, data: &str) -> io::Result<()> {
        self.send(function, data)?;
        self.answer(|_| Ok(()))
    }

    /// Makes many calls, some hundred at a time.
    pub fn pipeline(
        &mut self,
        function: &str,
        data: impl IntoIterator<Item = String>,
    ) -> io::Result<()> {
        const AT_ONCE: usize = 256;
        let mut data = data.into_iter().peekable();
        while data.peek().is_some() {
            let first = self.calls;
            for data in data.by_ref().take(AT_ONCE) {
                self.queue(function, &data);
            }
            let sent = self.calls - first;
            self.flush()?;
            let last = self.calls;
            for call in 1..=sent {
                self.calls = first + call;
                self.answer(|_| Ok(()))?;
            }
            self.calls = last;
        }
        Ok(())
    }

    fn send(&mut self, function: &str, data: &str) -> io::Result<()> {
        self.queue(function, data);
        self.flush()
    }

    fn queue(&mut self, function: &str, data: &str) {
        self.calls += 1;
        let call = format!(
            r#"{{"type":"invokefunction","invocation_id":"{}","function_id":"{function}","data":{data}}}"#,
            id(self.calls)
        );
        frame::encode(TEXT, call.as_bytes(), &mut self.output);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// The answer to the call with the latest number.
    fn answer<T>(&mut self, read: impl FnOnce(Option<&str>) -> io::Result<T>) -> io::Result<T> {
        let expected = id(self.calls);
        loop {
            let text = self.message()?;
            let answer: Answer<'_> = serde_json::from_slice(&text)
                .map_err(|error| unexpected(&error.to_string(), &text))?;
            if answer.invocation_id != Some(expected.as_str()) {
                continue;
            }
            if answer.error.is_some() {
                return Err(unexpected("the call failed", &text));
            }
            return read(answer.result.map(RawValue::get));
        }
    }

    /// The payload of the next text message.
    fn message(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(frame) = frame::decode(&self.input[self.read..]) {
                let (opcode, payload, bytes) = (frame.opcode, frame.payload.to_vec(), frame.bytes);
                self.read += bytes;
                match opcode {
                    TEXT => return Ok(payload),
                    PING => {
                        frame::encode(PONG, &payload, &mut self.output);
                        self.flush()?;
                    }
                    frame::CLOSE => {
                        return Err(io::Error::other(frame::close_reason(&payload)));
                    }
                    _ => {}
                }
                continue;
            }
            self.input.drain(..self.read);
            self.read = 0;
            let mut chunk = [0; 64 << 10];
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::Error::other("the server ended the connection")),
                read => self.input.extend_from_slice(&chunk[..read]),
            }
        }
    }
}

fn id(call: u64) -> String {
    format!("00000000-0000-4000-9000-{call:012x}")
}

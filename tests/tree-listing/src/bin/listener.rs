//! Listens in a guest at each of its arguments, as `tcp:0.0.0.0:9000` or `udp:[::]:53`; says so,
//! gives back what comes by TCP, and goes on until its standard input ends.
#![allow(clippy::print_stdout, reason = "what it says is the program's output")]

use std::io::{self, Read};
use std::net::{TcpListener, UdpSocket};
use std::thread;

fn main() -> io::Result<()> {
    let mut sockets = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.split_once(':') {
            Some(("tcp", address)) => {
                let listener = TcpListener::bind(address)?;
                thread::spawn(move || {
                    listener
                        .incoming()
                        .flatten()
                        .try_for_each(|mut stream| io::copy(&mut stream.try_clone()?, &mut stream).map(drop))
                });
            }
            Some(("udp", address)) => sockets.push(UdpSocket::bind(address)?),
            _ => return Err(io::Error::other(format!("not tcp: or udp: {argument}"))),
        }
    }
    println!("listening");
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

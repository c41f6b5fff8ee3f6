//! Our own client library over TLS.

use whimbrel_client::blocking::Client;
use whimbrel_client::{Message, QoS, Tls, TlsOptions};

use crate::setup::{Certs, listener};
use crate::support::{Broker, PATIENCE};

#[test]
fn our_client_shows_its_certificate_by_mqtts_and_wss() {
    let certs = Certs::new(&["alice"]);
    let wss = "[[listener]]\ntype = \"websocket\"\nbind = \"127.0.0.1:0\"\n";
    let text = listener(&certs.mutual("required")) + wss + &certs.mutual("required");
    let broker = Broker::with_file(&text);
    let urls =
        [format!("mqtts://{}", broker.address("tls")), format!("wss://{}", broker.address("wss"))];
    let options = TlsOptions {
        ca_file: Some(certs.path("ca.pem").into()),
        certificate: Some((certs.path("alice.pem").into(), certs.path("alice.key").into())),
        ..TlsOptions::default()
    };
    let [receiver, sender] = urls.each_ref().map(|url| {
        let tls = Tls::new(&options).expect("usable files");
        Client::connect(Client::builder(url).expect("a URL").tls(tls)).expect("accepted")
    });
    let mut subscription = receiver.subscribe("t").expect("granted");
    let message = Message::new("t", vec![b'x'; 100_000]).qos(QoS::ExactlyOnce);
    sender.publish(message).expect("taken").wait().expect("arrived");
    let message = subscription.next_timeout(PATIENCE).expect("a message");
    assert_eq!(message.payload, vec![b'x'; 100_000]);

    let nobody = TlsOptions { certificate: None, ..options };
    for url in urls {
        let tls = Tls::new(&nobody).expect("usable files");
        let builder = Client::builder(&url).expect("a URL").tls(tls);
        let error = Client::connect(builder).err().expect("refused").to_string();
        assert!(error.contains("wants a certificate"), "{error}");
    }
}

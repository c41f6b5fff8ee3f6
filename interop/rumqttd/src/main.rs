//! rumqttd with the configuration file that the command line names.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: interop-rumqttd CONFIG")?;
    let config = toml::from_str(&std::fs::read_to_string(path)?)?;
    rumqttd::Broker::new(config).start()?;
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0
//! Every AEAD engine, in every form, against `aes-gcm`: bursts of jobs with keys of several sizes and ICV lengths, at any
//! alignment, sealed and opened, and opened again with something wrong.
//!
//! On CPUs without wide instructions the native engine's wide forms run on the models of its own tests.

use aead::{Aad, Engine, IcvLength, Key, OpenJob, SealJob};

use crate::input::Input;

/// Keys of an input: two of different kinds are enough to be mixed up.
const KEYS: usize = 2;
/// More than an engine looks ahead, and few enough to stay fast.
const JOBS: usize = 12;
/// Text of all jobs together, in octets.
const TEXTS: usize = 3 * LONGEST;
/// What a jumbo frame carries.
const LONGEST: usize = 9_216;
/// The high word of sequence numbers with ESN.
const SEQUENCE_HIGH: u32 = 0x0102_0304;
/// What lies around a buffer and must stay.
const AROUND: u8 = 0xa5;
const AROUND_BYTES: usize = 64;

/// A burst.
///
/// # Panics
/// On a finding.
pub fn aead(data: &[u8]) {
    let mut input = Input::new(data);
    let secrets: [Secret; KEYS] = core::array::from_fn(|_| Secret::read(&mut input));
    let jobs = Job::read_all(&mut input);
    let reference: Vec<_> = jobs.iter().map(|job| job.seal_alone(&secrets)).collect();
    let engines: Vec<_> = Engine::in_every_form().collect();
    let keys: Vec<_> =
        engines.iter().map(|engine| secrets.each_ref().map(|key| key.expand(*engine))).collect();
    for keys in &keys {
        burst(&jobs, &reference, &|job| &keys[job.key]);
    }
    // Jobs of all engines in one burst, another one's first each time.
    for first in 0..engines.len() {
        burst(&jobs, &reference, &|job| &keys[(first + job.number) % engines.len()][job.key]);
    }
}

/// A key's octets, and the length of ICV that goes with it.
struct Secret {
    octets: Vec<u8>,
    icv: IcvLength,
}

impl Secret {
    fn read(input: &mut Input<'_>) -> Self {
        let size = input.choose([16, 24, 32]);
        let icv = input.choose([IcvLength::Sixteen, IcvLength::Twelve, IcvLength::Eight]);
        let octets = input.array::<32>()[..size].to_vec();
        Self { octets, icv }
    }

    fn expand(&self, engine: Engine) -> Key {
        engine.key(&self.octets, self.icv).expect("a length that AES has")
    }
}

/// What is wrong with a packet that is opened a second time.
#[derive(Clone, Copy)]
enum Wrong {
    /// A bit of text or ICV.
    Bit(u16),
    /// A bit of the nonce.
    Nonce(u8),
    /// The AAD is one of the other length.
    Aad,
    /// It is cut at its end, down to nothing at most.
    Cut(u16),
}

/// One packet to be.
struct Job {
    number: usize,
    key: usize,
    nonce: [u8; 12],
    spi: u32,
    esn: bool,
    aad: Aad,
    text: Vec<u8>,
    /// The buffer's address, modulo 64.
    alignment: usize,
    wrong: Wrong,
}

impl Job {
    fn read_all(input: &mut Input<'_>) -> Vec<Self> {
        let (mut jobs, mut room) = (Vec::new(), TEXTS);
        while jobs.len() < JOBS && !input.is_empty() {
            let job = Self::read(jobs.len(), room, input);
            room -= job.text.len();
            jobs.push(job);
        }
        jobs
    }

    /// Flags (1 the second key, 2 ESN, 4 a length of two octets, 8 a text of its own), then what they ask for.
    fn read(number: usize, room: usize, input: &mut Input<'_>) -> Self {
        let flags = input.u8();
        let nonce = input.array();
        let (spi, low, esn) = (input.u32(), input.u8().into(), flags & 2 != 0);
        let aad = if esn { Aad::extended(spi, SEQUENCE_HIGH, low) } else { Aad::short(spi, low) };
        let length =
            if flags & 4 == 0 { input.u8().into() } else { usize::from(input.u16()) % (LONGEST + 1) };
        let length = length.min(room);
        let given = if flags & 8 == 0 { &[][..] } else { input.bytes(length) };
        // What the input does not say is a run of octets without a pattern that an engine could be blind to.
        let filled = (given.len()..length).map(|place| (((place * place) >> 3) ^ (place * 37)) as u8);
        let text = given.iter().copied().chain(filled).collect();
        let alignment = usize::from(input.u8() % 64);
        let wrong = match input.u8() % 8 {
            0 => Wrong::Nonce(input.u8()),
            1 => Wrong::Aad,
            2 => Wrong::Cut(input.u16()),
            _ => Wrong::Bit(input.u16()),
        };
        Self { number, key: usize::from(flags & 1), nonce, spi, esn, aad, text, alignment, wrong }
    }

    /// What the reference makes of it.
    fn seal_alone(&self, secrets: &[Secret; KEYS]) -> Vec<u8> {
        let engine = Engine::named("aes-gcm").expect("the reference is always there");
        let key = secrets[self.key].expand(engine);
        let mut buffer = [&self.text[..], &vec![0; key.icv_length().bytes()]].concat();
        let job = SealJob::new(&key, self.nonce, self.aad, &mut buffer).expect("room for the ICV");
        aead::seal(&mut [job]);
        buffer
    }

    /// The packet with something wrong.
    fn spoiled(&self, sealed: &[u8]) -> Packet {
        let mut packet = self.sealed(sealed);
        match self.wrong {
            Wrong::Bit(at) => {
                let bit = usize::from(at) % (sealed.len() * 8);
                packet.buffer[bit / 8] ^= 1 << (bit % 8);
            }
            Wrong::Nonce(at) => packet.nonce[usize::from(at) % 12] ^= 1 << (at % 8),
            Wrong::Aad if self.esn => packet.aad = Aad::short(self.spi, SEQUENCE_HIGH),
            Wrong::Aad => packet.aad = Aad::extended(self.spi, 0, 0),
            Wrong::Cut(by) => packet.buffer.truncate(sealed.len() - 1 - usize::from(by) % sealed.len()),
        }
        packet
    }

    /// The packet as it is.
    fn sealed(&self, sealed: &[u8]) -> Packet {
        Packet { nonce: self.nonce, aad: self.aad, buffer: sealed.to_vec() }
    }
}

/// What is given to be opened.
struct Packet {
    nonce: [u8; 12],
    aad: Aad,
    buffer: Vec<u8>,
}

/// A buffer at an address of its own, with octets around it that must stay.
struct Place {
    memory: Vec<u8>,
    from: usize,
    to: usize,
}

impl Place {
    fn new(alignment: usize, content: &[u8]) -> Self {
        let mut memory = vec![AROUND; content.len() + 2 * AROUND_BYTES + 64];
        let from = AROUND_BYTES + (alignment.wrapping_sub(memory.as_ptr().addr()) % 64);
        let to = from + content.len();
        memory[from..to].copy_from_slice(content);
        Self { memory, from, to }
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.to]
    }

    fn content(&self) -> Vec<u8> {
        let mut around = self.memory[..self.from].iter().chain(&self.memory[self.to..]);
        assert!(around.all(|octet| *octet == AROUND), "written outside a buffer");
        self.memory[self.from..self.to].to_vec()
    }
}

/// Seals the jobs as one burst and opens them as one, right and wrong.
fn burst<'k>(jobs: &[Job], reference: &[Vec<u8>], key_of: &impl Fn(&Job) -> &'k Key) {
    let name = |job| key_of(job).engine().describe();
    for ((job, sealed), expected) in jobs.iter().zip(seal(jobs, key_of)).zip(reference) {
        assert!(sealed == *expected, "{}: {} octets sealed otherwise", name(job), job.text.len());
    }
    let right: Vec<_> = jobs.iter().zip(reference).map(|(job, sealed)| job.sealed(sealed)).collect();
    for (job, (verified, opened)) in jobs.iter().zip(open(jobs, &right, key_of)) {
        assert!(verified, "{}: {} octets not opened", name(job), job.text.len());
        assert!(opened.starts_with(&job.text), "{}: {} octets opened otherwise", name(job), job.text.len());
    }
    let wrong: Vec<_> = jobs.iter().zip(reference).map(|(job, sealed)| job.spoiled(sealed)).collect();
    for ((job, packet), (verified, left)) in jobs.iter().zip(&wrong).zip(open(jobs, &wrong, key_of)) {
        assert!(!verified, "{}: opened what is wrong", name(job));
        let text = packet.buffer.len().saturating_sub(key_of(job).icv_length().bytes());
        assert!(left[..text].iter().all(|octet| *octet == 0), "{}: text not verified is left", name(job));
        assert_eq!(left[text..], packet.buffer[text..], "{}: an ICV is changed", name(job));
    }
}

fn seal<'k>(jobs: &[Job], key_of: &impl Fn(&Job) -> &'k Key) -> Vec<Vec<u8>> {
    let place = |job: &Job| {
        let room = vec![0x5a; key_of(job).icv_length().bytes()];
        Place::new(job.alignment, &[&job.text[..], &room].concat())
    };
    let mut places: Vec<_> = jobs.iter().map(place).collect();
    let staged = jobs.iter().zip(&mut places).map(|(job, place)| {
        SealJob::new(key_of(job), job.nonce, job.aad, place.buffer()).expect("room for the ICV")
    });
    aead::seal(&mut staged.collect::<Vec<_>>());
    places.iter().map(Place::content).collect()
}

/// Whether each is verified, and what is left in its buffer.
fn open<'k>(jobs: &[Job], packets: &[Packet], key_of: &impl Fn(&Job) -> &'k Key) -> Vec<(bool, Vec<u8>)> {
    let mut places: Vec<_> =
        jobs.iter().zip(packets).map(|(job, packet)| Place::new(job.alignment, &packet.buffer)).collect();
    let staged = jobs.iter().zip(packets).zip(&mut places);
    let mut staged: Vec<_> = staged
        .map(|((job, packet), place)| OpenJob::new(key_of(job), packet.nonce, packet.aad, place.buffer()))
        .collect();
    aead::open(&mut staged);
    let verified: Vec<_> = staged.iter().map(|job| job.verified).collect();
    verified.into_iter().zip(places.iter().map(Place::content)).collect()
}

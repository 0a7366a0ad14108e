//! Runs the guest module in wasmtime, sandboxed as a server would: no imports, bounded memory and time.

use std::path::Path;

use wasmtime::{
    Config, Engine, Instance, Memory, Module, Store, StoreLimits, StoreLimitsBuilder, TypedFunc,
};

/// Memory one guest may have. The largest vector needs a few megabytes.
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// Instructions one call may take, so that a guest that loops ends as a failed test.
const FUEL_PER_CALL: u64 = 20_000_000_000;

/// The compiled module; cheap to instantiate many times.
#[derive(Clone)]
pub struct GuestModule {
    module: Module,
}

/// One instance of the module, reused for many calls.
pub struct Guest {
    store: Store<StoreLimits>,
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    dealloc: TypedFunc<(u32, u32), ()>,
    update: TypedFunc<(u32, u32), u64>,
}

impl GuestModule {
    /// Compiles the module of the given file.
    ///
    /// # Panics
    /// Where the file is no wasm module, or imports anything: a core that does I/O would show here.
    pub fn compile(file: &Path) -> Self {
        let mut config = Config::new();
        config.consume_fuel(true);
        let engine = Engine::new(&config).expect("the configuration is fixed and valid");
        let module = Module::from_file(&engine, file)
            .unwrap_or_else(|error| panic!("cannot compile {}: {error:#}", file.display()));
        let imports: Vec<_> = module
            .imports()
            .map(|import| format!("{}.{}", import.module(), import.name()))
            .collect();
        assert!(imports.is_empty(), "the guest imports {imports:?}");
        Self { module }
    }

    /// A fresh instance with empty memory.
    ///
    /// # Panics
    /// Where an export of the ABI is missing.
    pub fn instantiate(&self) -> Guest {
        let limits = StoreLimitsBuilder::new()
            .memory_size(MEMORY_BYTES_MAX)
            .trap_on_grow_failure(true)
            .build();
        let mut store = Store::new(self.module.engine(), limits);
        store.limiter(|limits| limits);
        refuel(&mut store);
        let instance =
            Instance::new(&mut store, &self.module, &[]).expect("a module without imports starts");
        let memory = instance
            .get_memory(&mut store, "memory")
            .expect("the guest exports its memory");
        Guest {
            alloc: export(&instance, &mut store, "alloc"),
            dealloc: export(&instance, &mut store, "dealloc"),
            update: export(&instance, &mut store, "update"),
            memory,
            store,
        }
    }
}

impl Guest {
    /// Answers the request of `old` (`None`: the item is missing) and `ops`, both JSON texts.
    ///
    /// # Panics
    /// Where the guest traps, or breaks the ABI.
    pub fn update(&mut self, old: Option<&str>, ops: &str) -> String {
        let request = match old {
            Some(old) => format!(r#"{{"old":{old},"ops":{ops}}}"#),
            None => format!(r#"{{"ops":{ops}}}"#),
        };
        self.call(request.as_bytes())
    }

    /// Bytes of memory the instance holds now.
    pub fn memory_bytes(&self) -> usize {
        self.memory.data_size(&self.store)
    }

    fn call(&mut self, request: &[u8]) -> String {
        refuel(&mut self.store);
        let len = u32::try_from(request.len()).expect("a request fits a wasm memory");
        let ptr = ran(self.alloc.call(&mut self.store, len), request);
        assert_ne!(ptr, 0, "the guest has no memory for {len} bytes");
        self.memory
            .write(&mut self.store, ptr as usize, request)
            .expect("allocated memory lies inside the memory");
        let packed = ran(self.update.call(&mut self.store, (ptr, len)), request);
        ran(self.dealloc.call(&mut self.store, (ptr, len)), request);

        let answer_ptr = (packed >> 32) as u32;
        let answer_len = (packed & u64::from(u32::MAX)) as u32;
        let mut answer = vec![0; answer_len as usize];
        self.memory
            .read(&self.store, answer_ptr as usize, &mut answer)
            .expect("the answer lies inside the memory");
        ran(
            self.dealloc.call(&mut self.store, (answer_ptr, answer_len)),
            request,
        );
        String::from_utf8(answer).expect("the answer is JSON, hence UTF-8")
    }
}

fn export<P, R>(instance: &Instance, store: &mut Store<StoreLimits>, name: &str) -> TypedFunc<P, R>
where
    P: wasmtime::WasmParams,
    R: wasmtime::WasmResults,
{
    instance
        .get_typed_func(store, name)
        .unwrap_or_else(|error| panic!("the guest's `{name}`: {error:#}"))
}

fn refuel(store: &mut Store<StoreLimits>) {
    store
        .set_fuel(FUEL_PER_CALL)
        .expect("the engine counts fuel");
}

/// What a call gave; a trap names the request that caused it.
fn ran<T>(result: wasmtime::Result<T>, request: &[u8]) -> T {
    result.unwrap_or_else(|error| {
        let request = String::from_utf8_lossy(&request[..request.len().min(2_000)]);
        panic!("the guest trapped on {request}: {error:#}")
    })
}

/* NVIDIA's management library as a consumer calls it, for one GPU. What it answers is set by a test, by name:
   nvml_set("used", 5) and so on. Returns the codes of nvml.h. */
#include <stdint.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, TIMEOUT = 10 };

typedef struct { void *device; uint64_t type, data; uint32_t instance, compute; } event_t;
typedef struct { uint32_t version; uint64_t total, reserved, free, used; } memory_t;
typedef struct { uint32_t pid; uint64_t used; uint32_t instance, compute; } process_t;

static struct { const char *name; uint64_t value; } state[] = {
    {"init", SUCCESS}, {"handle", SUCCESS}, {"memory", SUCCESS}, {"register", SUCCESS}, {"opened", 0},
    {"total", 0}, {"used", 0}, {"pid", 0}, {"xid", 0}, {"xid_instance", 0xFFFFFFFF},
};

/* A device that failed once fails until the library is opened anew. */
static uint64_t lost;

static uint64_t *of(const char *name) {
    for (unsigned i = 0; i < sizeof state / sizeof *state; i++)
        if (!strcmp(state[i].name, name)) return &state[i].value;
    return 0;
}

void nvml_set(const char *name, uint64_t value) { *of(name) = value; }
uint64_t nvml_get(const char *name) { return *of(name); }

const char *nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : code == 6 ? "Not Found" : "Some error"; }

int nvmlInitWithFlags(unsigned flags) {
    if (*of("init") == SUCCESS && !(*of("opened"))++) lost = 0;
    return *of("init");
}

int nvmlShutdown(void) { --*of("opened"); return SUCCESS; }

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) { *device = (void *)1; return *of("handle"); }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *slice, void **device) { *device = (void *)2; return SUCCESS; }
int nvmlDeviceGetGpuInstanceId(void *device, unsigned *id) { *id = 7; return SUCCESS; }
int nvmlEventSetCreate(void **events) { *events = (void *)3; return SUCCESS; }
int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *events) { return *of("register"); }

int nvmlEventSetWait_v2(void *events, event_t *event, unsigned timeout_ms) {
    if (!*of("xid")) return TIMEOUT;
    memset(event, 0, sizeof *event);
    event->type = 8, event->data = *of("xid"), event->instance = *of("xid_instance");
    *of("xid") = 0;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, memory_t *memory) {
    memory->total = *of("total"), memory->used = *of("used");
    if (*of("memory")) lost = *of("memory");
    return lost;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *processes) {
    unsigned room = *count;
    *count = *of("pid") != 0;
    if (room < *count) return 7;
    if (*count) memset(processes, 0, sizeof *processes), processes->pid = *of("pid");
    return SUCCESS;
}

#include "pool.h"

#ifndef _WIN32
#include <unistd.h>
#endif

namespace rti::cpu {
namespace {

constexpr int kSpins = 20000;

int process() {
#ifdef _WIN32
  return 0;
#else
  return static_cast<int>(getpid());
#endif
}

}  // namespace

void Barrier::wait() {
  const int round = round_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (int spin = 0; round_.load(std::memory_order_acquire) == round; ++spin) {
    if (spin >= kSpins) std::this_thread::yield();
  }
}

std::shared_ptr<Pool> Pool::shared() {
  static std::mutex guard;
  static int owner = -1;
  static std::shared_ptr<Pool> pool;
  const std::lock_guard<std::mutex> lock(guard);
  if (owner != process()) {
    // A fork copies the pool without its threads: what is left of it is never touched again.
    if (pool) new std::shared_ptr<Pool>(std::move(pool));
    pool = std::make_shared<Pool>();
    owner = process();
  }
  return pool;
}

Pool::~Pool() {
  {
    const std::lock_guard<std::mutex> lock(state_);
    ending_ = true;
  }
  work_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Pool::grow(int workers) {
  while (static_cast<int>(workers_.size()) < workers) {
    const int index = static_cast<int>(workers_.size());
    workers_.emplace_back([this, index] { serve(index); });
  }
}

void Pool::run(int threads, const std::function<void(int, int)>& body) {
  const std::unique_lock<std::mutex> busy(busy_, std::try_to_lock);
  if (threads <= 1 || !busy.owns_lock()) {
    body(0, 1);
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(state_);
    grow(threads - 1);
    body_ = &body;
    threads_ = threads;
    running_ = threads - 1;
    ++round_;
  }
  work_.notify_all();
  body(0, threads);
  std::unique_lock<std::mutex> lock(state_);
  done_.wait(lock, [this] { return running_ == 0; });
}

void Pool::serve(int index) {
  unsigned seen = 0;
  for (;;) {
    const std::function<void(int, int)>* body = nullptr;
    int threads = 0;
    {
      std::unique_lock<std::mutex> lock(state_);
      work_.wait(lock, [&] { return ending_ || (round_ != seen && index + 1 < threads_ && running_ > 0); });
      if (ending_) return;
      seen = round_;
      body = body_;
      threads = threads_;
    }
    (*body)(index + 1, threads);
    {
      const std::lock_guard<std::mutex> lock(state_);
      --running_;
    }
    done_.notify_one();
  }
}

}  // namespace rti::cpu

// Threads that run one pass together: woken once a pass, they meet at barriers inside it.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace rti::cpu {

// Where all threads of a pass wait for the last one. They spin, since a phase takes microseconds, and give way when that lasts.
class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}
  void wait();

 private:
  const int threads_;
  std::atomic<int> arrived_{0};
  std::atomic<int> round_{0};
};

class Pool {
 public:
  // The process's pool; after a fork, the child's own.
  static std::shared_ptr<Pool> shared();
  ~Pool();

  // body(thread, threads) on ``threads`` threads, the caller's among them. Alone where another pass has the pool.
  void run(int threads, const std::function<void(int, int)>& body);

 private:
  void serve(int index);
  void grow(int workers);

  std::mutex busy_;
  std::mutex state_;
  std::condition_variable work_, done_;
  std::vector<std::thread> workers_;
  const std::function<void(int, int)>* body_ = nullptr;
  int threads_ = 0;
  int running_ = 0;
  unsigned round_ = 0;
  bool ending_ = false;
};

}  // namespace rti::cpu
